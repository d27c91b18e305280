"""A desk whose rows go to a server."""

from dataclasses import dataclass

from api.desk import Desk
from hdi import HistoricalData
from hdi.testing.material import schemas
from lakes import MAPPING
from server_faults.places import ServerPlace


@dataclass
class Counter(Desk):
    """``folder`` holds the vendor's bytes; ``database`` is the URL of the store."""

    address: str = ""

    @property
    def place(self):
        return ServerPlace(self.folder, {}, self.address)

    def open(self):
        data = HistoricalData.open(self.address, **self.flags())
        # The packaged kinds of data are read once for all tests, not once for each call.
        vars(data).update(schemas=schemas(), _mapping=MAPPING)
        return data
