"""The protocols that are simulated, one small class each."""

from exchanges.simulator.dialects.base import Session
from exchanges.simulator.dialects.binance import Binance
from exchanges.simulator.dialects.bybit import Bybit
from exchanges.simulator.dialects.coinbase import Coinbase
from exchanges.simulator.dialects.gateio import GateIo
from exchanges.simulator.dialects.gemini import Gemini
from exchanges.simulator.dialects.kraken import Kraken
from exchanges.simulator.dialects.okx import Okx

DIALECTS: dict[str, type[Session]] = {
    "coinbase": Coinbase,
    "gemini": Gemini,
    "kraken": Kraken,
    "gateio": GateIo,
    "bybit": Bybit,
    "okx": Okx,
    "binance": Binance,
}

__all__ = ["DIALECTS", "Session"]
