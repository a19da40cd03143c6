"""`python -m fbft_edge` is `fbft-edge`."""

from fbft_edge.cli import main
from fbft_edge.exit_status import leave


def console() -> None:
    """The command `fbft-edge`."""
    leave(main())


if __name__ == "__main__":
    console()
