"""The gateway: the only part of Qila that clients see. It keeps the records and conducts execs."""
