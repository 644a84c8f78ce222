"""How the process that writes a rank's files tells the rank what it wrote."""

import pickle
import queue
import tempfile
from typing import Any


class WriteResults:
    """What core uses of a queue, for one message of one save, in an unnamed temporary file.

    Core's own is a server process: it costs seconds to start, and outlives a rank that was killed,
    with the rank's output held open. A pipe would block a writer with more to say than fits in.
    The file is shared by the rank and the writer forked from it, and by nobody else.
    """

    def __init__(self) -> None:
        self.file = tempfile.TemporaryFile()  # noqa: SIM115 (closed once it has been read)

    def put(self, message: Any) -> None:
        """Leaves the message; called once, by the writer."""
        pickle.dump(message, self.file)
        self.file.flush()

    def get_nowait(self) -> Any:
        """Takes the message.

        Raises:
            queue.Empty: the writer died before it left one.
        """
        self.file.seek(0)
        try:
            return pickle.load(self.file)
        except (EOFError, pickle.UnpicklingError) as error:
            raise queue.Empty from error
        finally:
            self.file.close()
