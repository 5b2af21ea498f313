"""Where attempts run: the protocol, this process, and Ray."""
