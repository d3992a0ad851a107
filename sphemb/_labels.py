from sphemb._checks import VOID as VOID
