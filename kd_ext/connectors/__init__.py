from .connector import Connector, ConvBNConnector
from .margins import RunningMarginConnector, bn_margin

__all__ = ['Connector', 'ConvBNConnector', 'RunningMarginConnector',
           'bn_margin']
