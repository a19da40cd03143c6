"""Results for PLCs: Modbus TCP, OPC UA and MQTT, each a process of its own that reads a publisher.

`camera_state` says what may be believed of each camera; `modbus`, `opcua` and `mqtt` show it. Knows nothing about
frames and engines.
"""
