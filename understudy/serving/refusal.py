"""How the live server says no: a status, and a JSON body of one form that holds nothing of what was sent."""

from http import HTTPStatus

CODES = {400: "INVALID_PARAMETER_VALUE", 404: "RESOURCE_DOES_NOT_EXIST", 500: "INTERNAL_ERROR"}  # MLflow's words


class BadRequest(Exception):  # noqa: N818
    """A request that is answered with a status of 400 or above and one sentence.

    Args:
        status: Of the answer.
        message: For people.
        headers: More of the answer's headers, with _ for -.
    """

    def __init__(self, status: int, message: str, **headers: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items()).encode()

    def body(self) -> dict[str, str]:
        """The answer's body."""
        return error(self.status, self.message)


def error(status: int, message: str) -> dict[str, str]:
    """The body of an answer that is a refusal."""
    return {"error_code": CODES.get(status, HTTPStatus(status).name), "message": message}
