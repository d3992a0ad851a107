"""The errors that end a program with one line; they load nothing."""


class InputError(ValueError):
    """A mistake of the caller, in one line; the command line prints no traceback."""


class InputTypeError(InputError, TypeError):
    """An :class:`InputError` about a dtype or a Python type."""


class LostProcessError(Exception):
    """Another process has ended; a shutdown of JAX would wait for it."""


class NonFiniteLossError(ArithmeticError):
    """The loss, the gradient or the parameters are not finite; names the step."""


class PreemptedError(Exception):
    """A SIGTERM stopped training after a step that is saved."""
