"""The one exception that reaches a user as a single line."""


class UserError(Exception):
    """Bad input: the message says what is wrong, where, and what to do. `main` prints it without a traceback."""
