"""One site's operation as a folder: what control tells, what people ask of it, what was proposed and approved.

The control process is alone with the plant. All other processes (pages, audit, live twin, command line) know it by this
folder alone: they read what it writes, and put orders and proposals into it as whole files.
"""
