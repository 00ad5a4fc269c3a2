"""What people see of a station and ask of it: pages for a browser, and an overview for a terminal.

A process of its own. It reads what control writes (:mod:`~twinloop.deploy.station`), and puts orders, approvals and the
emergency stop into the station's folder; it never speaks to a plant, and control never waits for it.
"""
