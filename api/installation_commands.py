"""Commands about an installation, which need its settings and no service."""

from typing import Annotated

import typer

from api.terminal import failure, terminal

app = typer.Typer()


@app.command()
def settings() -> None:
    """Read the settings and touch nothing; exit 1 if one is wrong, or is still an example's."""
    from service.errors import ConfigurationError
    from service.settings import Settings

    try:
        found = Settings.from_environment()
    except ConfigurationError as error:
        raise failure(str(error)) from None
    where = f"{found.host} port {found.port}, data in {found.data_dir}"
    terminal().print(f"the settings are complete: {where}", highlight=False)


@app.command()
def prepare(
    wait_s: Annotated[
        float, typer.Option("--wait-s", help="Seconds for database and store to appear.")
    ] = 0.0,
) -> None:
    """Bring the database to this version's tables, once, before services start."""
    from service.errors import ConfigurationError
    from service.preparing import prepare as prepared
    from service.settings import Settings

    try:
        prepared(Settings.from_environment(), wait_s)
    except ConfigurationError as error:
        raise failure(str(error)) from None
    terminal().print("the database has this version's tables, and the artifact store answers")
