"""Settings: what can be set, under which names, and where each value came from."""

from dapi.config.loading import OPTIONS as OPTIONS
from dapi.config.loading import load_config as load_config
from dapi.config.settings import ApiConfig as ApiConfig
from dapi.config.settings import ChainNodeConfig as ChainNodeConfig
from dapi.config.settings import Config as Config
from dapi.config.settings import LogConfig as LogConfig
from dapi.config.settings import PocConfig as PocConfig
from dapi.config.settings import PocV2Config as PocV2Config
from dapi.config.settings import StorageConfig as StorageConfig
from dapi.config.settings import TlsConfig as TlsConfig
from dapi.config.settings import WebSocketConfig as WebSocketConfig
from dapi.messages.secret import Secret as Secret
