"""The compiled protobuf code is the sources' own, and lives beside other libraries' code of the same messages."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from dapi.messages import cosmos_pb2
from tools import make_proto


class CompiledCodeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.target = Path(self.mktemp())
        self.made = make_proto.compile_protos(self.target)

    def test_is_what_the_sources_compile_to(self) -> None:
        stale = [
            path.name
            for path in self.made
            if not (make_proto.ROOT / path.relative_to(self.target)).is_file()
            or (make_proto.ROOT / path.relative_to(self.target)).read_bytes() != path.read_bytes()
        ]
        self.assertEqual(stale, [], "stale: run `make proto`")

    def test_has_a_source_each(self) -> None:
        checked_in = {path.name for path in (make_proto.ROOT / make_proto.PACKAGE).glob("*_pb2.py*")}
        self.assertEqual(checked_in, {path.name for path in self.made})
        self.assertIn("cosmos_pb2.py", checked_in)

    def test_registers_names_of_our_own(self) -> None:
        self.assertEqual(cosmos_pb2.DESCRIPTOR.package, "dapi.cosmos")
        self.assertEqual(cosmos_pb2.DESCRIPTOR.name, "dapi/messages/cosmos.proto")
