"""Signs for the chain that is followed, under the number that the signer's account has there."""

from __future__ import annotations

from dapi.chain.keyring import SigningKey
from dapi.chain.queries import account_number
from dapi.chain.rpc import ChainRpc
from dapi.chain.transactions import DEFAULT_GAS_LIMIT, TransactionSigner
from dapi.errors import ChainRefusedError, ChainUnavailableError
from dapi.submission.problems import is_of_a_moved_network


class Signing:
    """Has the ``signer``, None until the account's number is known."""

    def __init__(
        self,
        rpc: ChainRpc,
        key: SigningKey,
        participant_address: str,
        gas_limit: int = DEFAULT_GAS_LIMIT,
    ) -> None:
        self._rpc = rpc
        self._gas_limit = gas_limit
        self.key = key
        self.participant_address = participant_address
        self.signer: TransactionSigner | None = None
        self.account_number: int | None = None

    @property
    def is_granted(self) -> bool:
        """Whether the key is not the participant's own, and needs grants."""
        return self.key.address != self.participant_address

    async def refresh(self) -> None:
        """Ask for the account's number, and sign with it from now on; raises ChainError."""
        chain_id = (await self._rpc.status()).chain_id
        try:
            number = await account_number(self._rpc, self.key.address)
        except ChainRefusedError as error:
            if is_of_a_moved_network(error):
                raise
            problem = f"the signer's account {self.key.address}: {error.log}; if it does not exist, send coins to it"
            raise ChainUnavailableError(problem) from error
        self.account_number = number
        self.signer = TransactionSigner(self.key, chain_id, number, self.participant_address, self._gas_limit)
