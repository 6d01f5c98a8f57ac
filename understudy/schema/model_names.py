"""What can name a registered model."""

from understudy.errors import UserError

LONGEST = 200  # letters of a name; with what the project adds, MySQL's columns take 256


def check_name(name: str) -> None:
    """Refuse what cannot name a registered model, before anything is asked or written.

    Raises:
        UserError: MLflow takes it for a path, a database has no room for it, or MLflow has no way to ask for it, as for
            a name with a quotation mark.
    """
    is_path = name == "." or name.startswith("..")
    if is_path or not name.strip() or set(name) & set("/:'") or len(name) > LONGEST:
        raise UserError(f"{name!r} cannot name a registered model", "choose another --name")
