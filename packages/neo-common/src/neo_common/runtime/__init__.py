"""Sockets, time, greenlets and signals of the daemons (gevent)."""
