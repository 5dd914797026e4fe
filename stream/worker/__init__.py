"""The data plane, assembled; the only place where rooms meet."""
