"""One connection: its provider process, its results file, its broadcast, and what is remembered of it."""

from __future__ import annotations

import asyncio
import hmac
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from feeds.contract import Parameters, Provider
from feeds.logs import get_logger
from feeds.messages import Start, Subscribe, TopicAnswer, Unsubscribe
from feeds.registry import parse_parameters, provider, split_symbols
from ringbuf.directory import connection_directory
from ringbuf.errors import ParameterError, TickringError, UnauthorizedError, UnsafePath, VenueUnreachable
from ringbuf.lock import WriterLock
from supervisor.control import ConnectionStatus
from supervisor.places import log_file, state_directory
from supervisor.provider_process import ProviderProcess
from supervisor.roster import Settings
from supervisor.services import OnLine, Services

_log = get_logger()

#: How often a directory is removed again in which somebody has just made a file.
_REMOVALS: Final = 10


class Connection:
    """A connection as the supervisor holds it. For its event loop; one change at a time (the caller locks)."""

    def __init__(
        self, settings: Settings, services: Services, on_line: OnLine, *, inherited: Sequence[int] = ()
    ) -> None:
        """Take a connection from its settings, not yet started.

        Args:
            settings: what it was made with.
            services: the recorder and the broadcasters.
            on_line: takes (connection, line) for the people who made it.
            inherited: see `ChildProcess.start`.
        """
        self.settings = settings
        #: Held by whoever changes the connection.
        self.lock = asyncio.Lock()
        #: Why it could not be brought back; empty if nothing stood in the way.
        self.trouble = ""
        self._services = services
        self._on_line = on_line
        self._provider: Provider[Parameters] = provider(settings.provider)
        self.process = ProviderProcess(
            settings.name, log_file(f"provider-{settings.name}"), self._start_message, self.line, inherited=inherited
        )

    def line(self, text: str) -> None:
        """Tell the people who made the connection something."""
        self._on_line(self.settings.name, text)

    def _start_message(self) -> Start:
        settings = self.settings
        letters = state_directory() / "dead_letters" / f"{settings.name}.jsonl"
        parameters = {**settings.parameters, "symbol": ",".join(settings.symbols)}
        return Start(settings.name, settings.provider, parameters, str(letters))

    def check(self, auth_token: str | None) -> None:
        """Let only those go on who have the connection's token, if it has one.

        Raises:
            UnauthorizedError: it is missing or wrong.
        """
        expected = self.settings.auth_token
        if expected is None:
            return
        if auth_token is None:
            raise UnauthorizedError(f"Client authorization token is required for {self.settings.name}.")
        # compare_digest: how long it takes must not tell how much was right.
        if not hmac.compare_digest(expected.encode(), auth_token.encode()):
            raise UnauthorizedError(f"Invalid client authorization token for {self.settings.name}.")

    # ---- life -------------------------------------------------------------------------------------------------------

    async def make(self) -> list[TopicAnswer]:
        """Bring a new connection to life, and give what the venue said.

        Raises:
            TickringError: what stood in the way. Whatever is raised, the caller undoes it: see `end`.
        """
        _fresh_directory(self.settings.name)
        await self._services.record(self.settings)
        answers = await self.process.start_first()
        if self.settings.broadcasting:
            await self._services.serve(self.settings)
        self._keep_accepted(answers)
        return answers

    def bring_back(self) -> None:
        """Start a connection of the list: what cannot be done now is tried again, and told in the status.

        Raises:
            TickringError: its directory cannot be used.
        """
        connection_directory(self.settings.name, create=True)
        self._services.bring_back(self.settings)
        if self.settings.running:
            self.process.start()

    async def stop(self) -> None:
        """End the provider process; results and broadcast stay."""
        self.settings.running = False
        await self.process.stop()

    async def end(self, *, made: bool = True) -> None:
        """End everything that belongs to the connection: its processes, its rings, and its results file if it is ours.

        Several callers may. What goes wrong is logged: the end goes on.

        Args:
            made: whether it ever lived. A results file of one that did not is nobody's: it goes even if results were
                to be saved.
        """
        await self.process.stop()
        await self._services.withdraw(self.settings)
        delete = self.settings.made_results_file and not (made and self.settings.save_results)
        await self._services.release(self.settings, delete=delete)
        try:
            _remove(connection_directory(self.settings.name))
        except TickringError as error:  # not there any more, or not ours to remove
            _log.warning("rings not removed", connection=self.settings.name, error=str(error))

    # ---- symbols ----------------------------------------------------------------------------------------------------

    async def subscribe(self, symbols: str) -> list[TopicAnswer]:
        """Add symbols, and give per topic what the venue said. They are wanted from now on, refused ones are not.

        Raises:
            ParameterError: a symbol that cannot be one of this venue; nothing has changed then.
        """
        wanted = self._canonical(symbols)
        if self.process.running:
            try:
                answers = await self.process.change(Subscribe, symbols)
            except VenueUnreachable as error:
                answers = self._later(wanted, str(error))
        else:
            answers = self._later(wanted, "the provider is stopped")
        refused = {answer.symbol for answer in answers if answer.state == "refused"}
        accepted = {answer.symbol for answer in answers if answer.state != "refused"}
        for symbol in wanted:
            if symbol not in self.settings.symbols and (symbol in accepted or symbol not in refused):
                self.settings.symbols.append(symbol)
        self._say("subscribed to", answers)
        return answers

    async def unsubscribe(self, symbols: str) -> list[TopicAnswer]:
        """Take symbols away.

        Raises:
            ParameterError: one of them is not subscribed, or none would be left; nothing has changed then.
        """
        unwanted = self._canonical(symbols)
        missing = [symbol for symbol in unwanted if symbol not in self.settings.symbols]
        if missing:
            raise ParameterError(f"{self.settings.name} is not subscribed to {', '.join(missing)}.")
        left = [symbol for symbol in self.settings.symbols if symbol not in unwanted]
        if not left:
            raise ParameterError(
                f"{', '.join(unwanted)} is all that {self.settings.name} is subscribed to: stop or kill the connection."
            )
        reason = "the provider is stopped"
        answers: list[TopicAnswer] = []
        if self.process.running:
            try:
                answers = await self.process.change(Unsubscribe, symbols)
            except VenueUnreachable as error:
                reason = str(error)
        if not answers:  # then it is just not asked for again
            answers = [TopicAnswer(symbol, "", "removed", reason) for symbol in unwanted]
        self.settings.symbols[:] = left
        self._say("unsubscribed to", answers)
        return answers

    def _canonical(self, symbols: str) -> list[str]:
        """Give the venue's spelling of symbols, once each. Raises ParameterError for what cannot be one."""
        parameters = parse_parameters(self._provider, {**self.settings.parameters, "symbol": symbols})
        topics = self._provider.topics(parameters, split_symbols(symbols))
        return list(dict.fromkeys(topic.symbol for topic in topics))

    @staticmethod
    def _later(symbols: list[str], why: str) -> list[TopicAnswer]:
        return [
            TopicAnswer(symbol, "", "requested", f"{why}; it is asked for when the venue is back") for symbol in symbols
        ]

    def _keep_accepted(self, answers: list[TopicAnswer]) -> None:
        """Go on wanting what the venue did not refuse."""
        accepted = {answer.symbol for answer in answers if answer.state != "refused"}
        self.settings.symbols[:] = [symbol for symbol in self.settings.symbols if symbol in accepted]
        self._say("subscribed to", answers)

    def _say(self, what: str, answers: list[TopicAnswer]) -> None:
        done = [answer.topic for answer in answers if answer.topic and answer.state != "refused"]
        if done:
            self.line(f"PROVIDER INFO:      {what}: {', '.join(done)}")
        for answer in answers:
            if answer.state == "refused":
                self.line(f"PROVIDER ERROR:     {answer.topic} refused: {answer.reason}")

    # ---- what can be seen of it -------------------------------------------------------------------------------------

    def status(self) -> ConnectionStatus:
        """Tell how the connection stands."""
        settings, process, policy = self.settings, self.process, self.process.policy
        address, pid = self._services.broadcast(settings)
        return ConnectionStatus(
            name=settings.name, auth_required=settings.auth_token is not None,
            subscribed_symbols=",".join(settings.symbols), is_running=process.running, provider_pid=process.pid,
            is_broadcasting=address is not None, broadcast_address=address, broadcast_pid=pid,
            results_file=settings.results_file, table_name=settings.table_name, save_results=settings.save_results,
            provider=settings.provider, limit=settings.limit, state=policy.state, since=process.since,
            restarts=policy.restarts,
            last_error=process.last_error or self.trouble or self._services.trouble(settings.name),
        )  # fmt: skip


def _fresh_directory(name: str) -> None:
    """Make a new connection's directory; what a connection of that name left behind goes first.

    Raises:
        WriterActive: somebody outside this supervisor still writes there.
        UnsafePath: something else stands there, or what is there cannot be removed.
    """
    directory = connection_directory(name, create=True)
    with WriterLock(directory):
        _remove(directory)
    connection_directory(name, create=True)


def _remove(directory: Path) -> None:
    """Remove a connection's directory, also while others make or remove files in it.

    Raises:
        UnsafePath: it cannot be removed.
    """
    failure = OSError()
    for _ in range(_REMOVALS):
        try:
            shutil.rmtree(directory)
        except OSError as error:
            failure = error
        if not directory.exists():
            return
    raise UnsafePath(f"{directory} cannot be removed: {failure.strerror}. Remove it.") from failure
