"""The exception that a user sees as one line."""


class UserError(Exception):
    """Bad input; the message says what is wrong, where, and what to do. The command prints it without a traceback."""
