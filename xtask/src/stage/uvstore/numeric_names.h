// c10d looks up the names of all who connect, for its log. A server need not wait for that, and a static program
// cannot ask.
#pragma once

#ifdef _WIN32
#include <winsock2.h>
#include <ws2tcpip.h>
#else
#include <netdb.h>
#endif

#define getnameinfo(address, size, host, host_size, port, port_size, flags) \
  getnameinfo(address, size, host, host_size, port, port_size, (flags) | NI_NUMERICHOST)
