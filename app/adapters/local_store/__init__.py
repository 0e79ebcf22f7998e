"""The artifact store on a local file system."""

from app.adapters.local_store.copying import Quotas
from app.adapters.local_store.store import LocalStore

__all__ = ["LocalStore", "Quotas"]
