"""Who is who on the wire: certificates, whom to trust, and users with their rights.

Each application has one folder, its *identity*::

    certificate.pem   what it shows (X.509); its application URI, names and addresses stand in it
    private_key.pem   what proves it, mode 0600; never leaves the folder
    trusted/          certificates of peers that it talks to, or of an authority that signed theirs; revocation lists
    rejected/         what it refused, for a person to look at and move into trusted/
    users.json        a server's users: names, hashed passwords or certificates, and what they may do
    user.json         a client's own user, mode 0600; the environment can give it instead

:mod:`.making` makes a site's own set, :mod:`.trust` judges a peer's certificate, :mod:`.identity` reads a folder,
:mod:`.users` judges who logs in.
"""
