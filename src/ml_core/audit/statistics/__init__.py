"""Effects, intervals and cheap models that several checks are made of."""
