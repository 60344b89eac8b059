from pathlib import Path


def install(home: Path) -> None:
    pass
