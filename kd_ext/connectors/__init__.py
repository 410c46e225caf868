from kd_ext.connectors.connector import Connector, ConvBNConnector
from kd_ext.connectors.margins import RunningMarginConnector, bn_margin

__all__ = ['Connector', 'ConvBNConnector', 'RunningMarginConnector', 'bn_margin']
