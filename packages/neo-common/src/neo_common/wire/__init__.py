"""What travels: packets, their codec, the session around a byte stream."""
