"""What the simulated exchanges trade: a rough price in US dollars for each asset. Sans-I/O."""

from dataclasses import dataclass
from decimal import Decimal

# Orders of magnitude and digits matter here (they decide tick sizes), not the day's price.
_PRICES = """
BTC 83371.10  ETH 2667.20  SOL 148.62  XRP 2.3127  BNB 702.40  DOGE 0.17425  ADA 0.6127  TRX 0.27114
LINK 14.871  AVAX 20.415  SUI 2.3114  XLM 0.28114  BCH 428.30  LTC 88.120  HBAR 0.17712  DOT 4.1127
TON 3.0141  SHIB 0.000012741  UNI 6.2114  AAVE 171.42  NEAR 2.4127  ETC 16.812  APT 4.8127  ICP 5.0114
POL 0.21127  ATOM 4.2114  FIL 2.6127  ARB 0.33114  OP 0.61127  INJ 10.114  1INCH 0.20114  2Z 0.21114
ACH 0.020127  AERO 0.81141  ALGO 0.19114  ANKR 0.015114  APE 0.50127  API3 0.71141  AR 6.4127
ARKM 0.50114  ASTER 1.2114  ATH 0.041127  AVNT 0.71114  AXS 2.2127  BAT 0.15114  BERA 2.1127  BICO 0.11114
BLUR 0.071127  BONK 0.000018427  BREV 0.41127  BAKE 0.081127  CAKE 2.4114  CELO 0.31127  CFG 0.21127
CHZ 0.039114  COMP 42.114  CRO 0.11127  CRV 0.61127  CVX 3.1127  DASH 22.114  DEGEN 0.0031127
DRIFT 0.51127  DYDX 0.61141  EGLD 16.114  EIGEN 1.3127  ENA 0.41127  ENJ 0.071141  ENS 18.114
ETHFI 1.0127  FARTCOIN 0.91127  FET 0.61141  FLOKI 0.000081127  FLOW 0.41141  FLR 0.018114  GALA 0.016127
GMT 0.051127  GMX 14.127  GOAT 0.11141  GRT 0.091127  HNT 3.1141  HYPE 38.127  IMX 0.61155  IP 4.1141
JASMY 0.014127  JTO 1.8127  KAVA 0.41155  KMNO 0.061127  KSM 15.127  LAYER 0.71127  LDO 0.91141
LINEA 0.021127  LPT 6.1127  LRC 0.091141  LUNA 0.17127  MANA 0.28127  MASK 1.3141  ME 0.81127  MET 0.41169
MEW 0.0021127  MINA 0.18127  MON 0.031127  MOODENG 0.091155  MORPHO 1.6127  ONDO 0.81155  PENDLE 4.1155
PENGU 0.021141  PEPE 0.0000097114  PNUT 0.21141  POPCAT 0.31141  PRCL 0.061141  PROVE 0.71155
PUMP 0.0041127  PYTH 0.13127  QNT 98.127  RAY 2.4141  RENDER 3.6127  RPL 5.1127  RSR 0.0061127
SAFE 0.41183  SAND 0.27127  SEI 0.19127  SENT 0.031141  SKY 0.061155  SNX 0.61169  SPK 0.051141
STORJ 0.24127  STRK 0.13141  STX 0.61183  SUSHI 0.61197  TIA 1.9127  TNSR 0.13155  TOSHI 0.00061127
TRUMP 8.4127  UMA 1.1127  VET 0.023127  VIRTUAL 1.3155  WCT 0.31155  WIF 0.81169  WLD 0.91155
WLFI 0.16127  XPL 0.71169  XTZ 0.61211  YB 0.41197  YFI 5127.40  ZAMA 0.071155  ZEC 44.127  ZETA 0.18141
ZK 0.051155  ZORA 0.071169  ZRO 1.9141  ZRX 0.24141  MNT 0.71183  PAXG 3341.20  PYUSD 0.9998  USDC 0.9999
USDT 0.9997  W 0.081141  KAS 0.091169  S 0.31169
"""

# Pegged to the dollar: they move about a hundredth as much as the others.
STABLE = frozenset({"USDT", "USDC", "PYUSD"})


@dataclass(frozen=True, slots=True)
class Market:
    """One asset's price at the start, as a whole number of ticks of ``10 ** -decimals`` dollars."""

    asset: str
    units: int
    decimals: int

    @classmethod
    def at(cls, asset: str, price: str) -> "Market":
        value = Decimal(price)
        decimals = max(2, 4 - value.adjusted())
        return cls(asset, int(value.scaleb(decimals)), decimals)


def _read_table() -> dict[str, Market]:
    words = _PRICES.split()
    return {asset: Market.at(asset, price) for asset, price in zip(words[::2], words[1::2], strict=True)}


MARKETS = _read_table()


def price_text(units: int, decimals: int) -> str:
    """Write *units* of ``10 ** -decimals`` the way exchanges do, trailing zeros included."""
    whole, rest = divmod(units, 10**decimals)
    return f"{whole}.{rest:0{decimals}d}" if decimals else str(whole)
