"""An exchange that says exactly what a test tells it, over the simulator's real sockets."""

from collections.abc import Callable, Mapping, Sequence

from exchanges.simulator.dialects.base import Answer, Limits, Out, Session, TradeFrame
from exchanges.simulator.server import Simulator
from exchanges.simulator.tape import Notation, Tape, Trade

Reply = Callable[[str], Sequence[Out]]


def no_reply(frame: str) -> Sequence[Out]:
    return ()


class FakeExchange(Simulator):
    """Serve one exchange, ``name``.

    ``on_connect`` is said to each client at once, ``reply`` answers each of its frames, ``say()`` sends more,
    ``bodies`` are the REST answers by path. The simulator's faults work here too.
    """

    def __init__(
        self,
        *,
        name: str = "plain",
        on_connect: Sequence[Out] = (),
        reply: Reply = no_reply,
        bodies: Mapping[str, Answer] | None = None,
        limits: Limits | None = None,
    ) -> None:
        answers = dict(bodies or {})

        class Scripted(Session):
            NOTATION = Notation("{}-USD")

            def opened(self, now_ns: int) -> list[Out]:
                return list(on_connect)

            def understand(self, frame: str, now_ns: int) -> list[Out]:
                return list(reply(frame))

            def trades(self, trades: Sequence[Trade], now_ns: int) -> list[TradeFrame]:
                return []

            @classmethod
            def rest(cls, tape: Tape, path: str, query: Mapping[str, str], now_ns: int) -> Answer:
                return answers.get(path, Answer(404, "{}"))

            @classmethod
            def rest_error(cls) -> Answer:
                return Answer(200, '{"error":"unknown symbol"}')

        super().__init__(dialects={name: Scripted}, limits={name: limits} if limits else None)
        self.name = name

    async def say(self, *outs: Out) -> None:
        """Send to every client, waiting for the first one if there is none yet."""
        exchange = self.exchange(self.name)
        await self.until(lambda: bool(exchange.lines))
        for line in tuple(exchange.lines):
            line.send(outs)
