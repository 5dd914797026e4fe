"""The wire: credentials, signing, clients, retry decisions."""
