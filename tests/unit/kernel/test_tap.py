"""The name of a container's network device is that of the host's which leads out."""

import pytest

from usercontainerd.kernel.tap import choose_device_name

HEAD = b"Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
LOCAL = b"lan0\t0002A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n"
HALF = b"vpn0\t00000000\t00000000\t0001\t0\t0\t0\t00000080\t0\t0\t0\n"
OUT = b"wlan0\t00000000\t0102A8C0\t0003\t0\t0\t600\t00000000\t0\t0\t0\n"
NOWHERE = b"*\t00000000\t00000000\t0200\t0\t0\t1024\t00000000\t0\t0\t0\n"
ZERO = b"0" * 32
SIX = ZERO + b" 00 " + ZERO + b" 00 fe80" + b"0" * 27 + b"1 00000400 1 0 00000003   wlan6\n"
NOWHERE_SIX = ZERO + b" 00 " + ZERO + b" 00 " + ZERO + b" ffffffff 1 0 00200200       lo\n"


@pytest.mark.parametrize(
    ("routes", "routes_of_six", "name"),
    [
        (HEAD + LOCAL + HALF + OUT, SIX, "wlan0"),
        (HEAD + NOWHERE + LOCAL, SIX + NOWHERE_SIX, "wlan6"),
        (HEAD + LOCAL, NOWHERE_SIX, "tap0"),
        (b"", b"", "tap0"),
    ],
)
def test_the_first_way_out_counts(routes: bytes, routes_of_six: bytes, name: str) -> None:
    assert choose_device_name(routes, routes_of_six) == name
