"""Access to AWS: credentials, signing, clients, retry decisions."""
