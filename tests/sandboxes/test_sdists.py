"""Source archives of images: fetched by pip with their hashes, and what the AtCoder library's image makes of its."""

import hashlib
import tarfile
from contextlib import closing
from pathlib import Path

import pytest

from sdpo_solve.errors import PrerequisiteError
from sdpo_solve.sandboxes import docker, install, toolchain
from sdpo_solve.sandboxes._sdists import with_sdists
from sdpo_solve.sandboxes.images import image_folder, setup_command
from sdpo_solve.types import BoxInput, ExecutionStatus, Limits, Program

# pip asks a source archive for its metadata; this one answers without another package.
BACKEND = """
import os
def prepare_metadata_for_build_wheel(folder, settings=None):
    name = "tiny_headers-1.0.dist-info"
    os.mkdir(os.path.join(folder, name))
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: tiny-headers\\nVersion: 1.0\\n")
    return name
"""
PROJECT = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A source archive in a folder that is pip's whole index."""
    root = tmp_path / "tiny_headers-1.0"
    root.mkdir()
    (root / "backend.py").write_text(BACKEND)
    (root / "pyproject.toml").write_text(PROJECT)
    (root / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: tiny-headers\nVersion: 1.0\n")
    (tmp_path / "index").mkdir()
    path = tmp_path / "index" / "tiny_headers-1.0.tar.gz"
    with tarfile.open(path, "w:gz") as file:
        file.add(root, root.name)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(path.parent))
    return path


def image(tmp_path: Path, digest: str) -> Path:
    folder = tmp_path / "image"
    folder.mkdir()
    (folder / "Dockerfile").write_text("FROM scratch\n")
    (folder / "sdists").write_text(f"tiny-headers==1.0 --hash=sha256:{digest}\n")
    return folder


def test_archives_lie_beside_a_copy_of_the_image_while_it_is_built(archive: Path, tmp_path: Path) -> None:
    folder = image(tmp_path, hashlib.sha256(archive.read_bytes()).hexdigest())
    with with_sdists(folder) as context:
        assert (context / archive.name).read_bytes() == archive.read_bytes()
        assert (context / "Dockerfile").read_text() == "FROM scratch\n"
    assert not context.exists()
    assert sorted(path.name for path in folder.iterdir()) == ["Dockerfile", "sdists"]


def test_an_archive_of_another_hash_is_refused(archive: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(PrerequisiteError, match=r"cannot fetch tiny-headers from the package index"),
        with_sdists(image(tmp_path, "0" * 64)),
    ):
        pytest.fail("it was built")


def test_images_without_archives_are_built_where_they_lie() -> None:
    with with_sdists(image_folder("cpp")) as context:
        assert context == image_folder("cpp")


def test_the_fuller_image_of_cpp_shares_its_base() -> None:
    assert install._debian_packages("cpp-full") == install._debian_packages("cpp")
    assert setup_command("cpp-full") == "sdpo-solve setup --language cpp --image full"


ATCODER = """
#include <atcoder/dsu>
#include <atcoder/modint>
#include <iostream>
int main() {
    int n, q;
    std::cin >> n >> q;
    atcoder::dsu groups(n);
    while (q--) {
        int a, b;
        std::cin >> a >> b;
        groups.merge(a, b);
    }
    std::cout << groups.groups().size() << ' ' << atcoder::modint998244353(2).inv().val() << '\\n';
}
"""
EVERYTHING = """
#include <bits/stdc++.h>
#include <atcoder/all>
using namespace std;
using namespace atcoder;
using ll = long long;
using mint = modint998244353;
int most(int a, int b) { return max(a, b); }
int least() { return -1; }
struct Sum { ll value; int size; };
Sum add(Sum a, Sum b) { return {a.value + b.value, a.size + b.size}; }
Sum none() { return {0, 0}; }
Sum shift(ll by, Sum x) { return {x.value + by * x.size, x.size}; }
ll both(ll f, ll g) { return f + g; }
ll stay() { return 0; }
int main() {
    vector<int> one{1, 2};
    vector<mint> of_mint{mint(1), mint(2)};
    assert((convolution(one, one) == vector<int>{1, 4, 4}));
    assert((convolution<469762049>(one, one)[2] == 4));
    assert(convolution(of_mint, of_mint)[1].val() == 4);
    assert((convolution_ll({1LL << 40, 1}, {1LL << 20, 3}) == vector<ll>{1LL << 60, (3LL << 40) + (1LL << 20), 3}));
    mf_graph<int> flow(3);
    flow.add_edge(0, 1, 7);
    flow.add_edge(1, 2, 5);
    assert(flow.flow(0, 2, 2) == 2 && flow.flow(0, 2) == 3 && flow.min_cut(0)[1] && flow.get_edge(1).flow == 5);
    mcf_graph<int, ll> cost(2);
    cost.add_edge(0, 1, 2, 3);
    assert(cost.slope(0, 1).back() == make_pair(2, 6LL));
    segtree<int, most, least> tree(vector<int>{3, 1, 4});
    assert(tree.prod(0, 2) == 3 && tree.max_right(0, [](int x) { return x < 4; }) == 2 && tree.all_prod() == 4);
    lazy_segtree<Sum, add, none, ll, shift, both, stay> lazy(vector<Sum>(4, {1, 1}));
    lazy.apply(1, 3, 5);
    assert(lazy.prod(0, 2).value == 7 && lazy.get(3).value == 1);
    fenwick_tree<ll> sums(3);
    sums.add(1, 5);
    assert(sums.sum(0, 3) == 5);
    scc_graph parts(2);
    parts.add_edge(0, 1);
    assert(parts.scc().size() == 2);
    two_sat clauses(1);
    clauses.add_clause(0, true, 0, true);
    assert(clauses.satisfiable() && clauses.answer()[0]);
    assert(suffix_array("ba")[0] == 1 && z_algorithm("aba")[2] == 1);
    assert(lcp_array("aa", suffix_array("aa"))[0] == 1);
    assert(floor_sum(4, 10, 6, 3) == 3 && pow_mod(2, 10, 1000) == 24 && inv_mod(3, 7) == 5);
    assert(crt({1, 2}, {3, 5}) == make_pair(7LL, 15LL));
    modint::set_mod(7);
    assert((modint(3) / 5 * 5 == 3 && mint::raw(2).pow(10) == 1024 && mint(-1).val() == 998244352));
    cout << "all of it\\n";
}
"""


@pytest.mark.docker
@pytest.mark.slow
def test_programs_in_cpp_use_the_atcoder_library() -> None:
    """Makes the image where it is not there, for which the package index must answer."""
    try:
        install.ensure_images(lambda _: None, ["cpp-full"])
    except PrerequisiteError as exc:
        pytest.skip(str(exc))
    options = docker.Options(image="full", boxes_ready=1, parallel=1)
    with closing(docker.DockerSandbox(options, "cpp")) as sandbox:
        for source, given, output in (
            (ATCODER, "5 2\n0 1\n1 2\n", "3 499122177\n"),
            (EVERYTHING, "", "all of it\n"),
        ):
            (result,) = sandbox.run(
                Program(source, language="cpp"), [BoxInput(stdin=given)], Limits(time_s=5.0, memory_mb=256)
            )
            assert (result.status, result.stdout) == (ExecutionStatus.OK, output), result.stderr
        assert any("AtCoder library" in name for name in toolchain(sandbox, "cpp").libraries)
