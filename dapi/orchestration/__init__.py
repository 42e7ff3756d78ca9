"""What the chain's phases make the nodes do: who acts in which stage, and what has been done for it."""
