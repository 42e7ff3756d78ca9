"""What has to reach the chain: kept on disk, each message once."""
