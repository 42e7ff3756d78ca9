"""What the chain says of its epochs: their phases, their stages and the batches of a stage."""
