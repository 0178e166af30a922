"""Constructing feed-forward networks: a large network is trained, and what varies in it becomes a small one."""
