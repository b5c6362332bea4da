"""A machine without a loopback, without IPv6, or with a host name that has no address."""

import pytest

from tests.environments.surroundings import isolated

# A network of one's own has a loopback that is down. ("ip" is not everywhere.)
UP = """
"$0" -c 'import fcntl, socket, struct
up = struct.pack("16sH14x", b"lo", 1)
fcntl.ioctl(socket.socket(), 0x8914, up)  # SIOCSIFFLAGS'
"""
# Up, and with an address that is not 127.0.0.1.
OTHER_ADDRESS = f"""{UP}
"$0" -c 'import fcntl, socket, struct
other = struct.pack("16sHH4s8x", b"lo", socket.AF_INET, 0, socket.inet_aton("10.0.0.1"))
fcntl.ioctl(socket.socket(), 0x8916, other)  # SIOCSIFADDR'
"""
LAB = ("-m", "courseware.lab")


@pytest.mark.parametrize(
    "command",
    [("run", "--profile", "ci"), ("serve", "--profile", "ci")],
    ids=lambda command: command[0],
)
def test_without_a_loopback_a_command_says_so_and_how_to_switch_it_on(served, command):
    ended = isolated('exec "$0" "$@"', *LAB, *command, "--root", served.course, net=True)
    assert ended.returncode == 1
    assert "connect to itself at 127.0.0.1 (Network is unreachable)" in ended.stderr
    assert "ip link set lo up" in ended.stderr
    assert "Traceback" not in ended.stderr


CHECK = 'exec "$0" -c "from courseware.lab.doctor import *; print(loopback(Path()))"'


@pytest.mark.parametrize(
    ("surroundings", "found"),
    [
        (CHECK, "state='broken'"),
        (OTHER_ADDRESS + CHECK, "state='broken'"),
        (UP + CHECK, "state='ok'"),
    ],
    ids=["down", "127.0.0.1 is missing", "up"],
)
def test_doctor_tells_how_the_loopback_stands(surroundings, found):
    ended = isolated(surroundings, net=True)
    assert found in ended.stdout, ended.stderr
    assert ("ip address add 127.0.0.1/8 dev lo" in ended.stdout) == ("broken" in found)


BARE = f"""
hostname a-name-without-an-address
mount --bind /dev/null /etc/resolv.conf
if [ -e /proc/sys/net/ipv6 ]; then echo 1 > /proc/sys/net/ipv6/conf/all/disable_ipv6; fi
{UP}
exec "$0" -c "$@"
"""
# A kernel with lab 2's cluster in it, and lab serve.
WORK = """
import json, subprocess, sys
import nbformat.v4 as form
from courseware.authoring.execute import execute
from multistage.serving.client import Client
cell = '''
from multistage.tensorflow_setup import quiet
quiet()
from dask import array
from dask.distributed import Client
from xgboost import dask as trees
here = {"n_workers": 1, "threads_per_worker": 2, "processes": False, "dashboard_address": None}
with Client(**here) as client:
    x = array.arange(64, chunks=32).reshape(64, 1)
    data = trees.DaskDMatrix(client, x, x[:, 0] % 2)
    grown = trees.train(client, {"objective": "binary:logistic"}, data, num_boost_round=2)
grown["booster"].num_boosted_rounds()
'''
done = execute(form.new_notebook(cells=[form.new_code_cell(cell)]), sys.argv[1])
print(done.cells[0].outputs[-1]["data"]["text/plain"])
serve = ["timeout", "-s", "INT", "30", sys.executable, "-m", "courseware.lab", "serve", "--json"]
serve += ["--profile", "ci", "--root", sys.argv[1]]
with subprocess.Popen(serve, stdout=subprocess.PIPE, text=True) as server:
    with Client(json.loads(server.stdout.readline())["grpc"]) as client:
        print(*client.recommend([7]).statuses)
    server.terminate()
"""


def test_without_ipv6_and_with_a_host_name_that_has_no_address_all_works(served):
    ended = isolated(BARE, WORK, served.course, net=True, uts=True)
    assert ended.stdout.split() == ["2", "personal"], ended.stderr
