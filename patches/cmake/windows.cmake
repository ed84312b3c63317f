# What Windows needs beside torchmill.cmake, which is included after this file.
#
#   TORCHMILL_LIBUV_ROOT   the prefix that holds include/uv.h, lib/uv.lib and bin/uv.dll
#
# Why it exists: PyTorch's list file switches USE_DISTRIBUTED off on Windows unless libuv_ROOT is in the
# environment; and Gloo, which finds a target `uv_a` there already, does not look for uv.dll any more, but
# copies it, from an empty name.

# Not WIN32: it is set with the first language, which comes after this file.
if(NOT CMAKE_SYSTEM_NAME STREQUAL "Windows")
  message(FATAL_ERROR "torchmill: windows.cmake is for Windows")
endif()

file(TO_CMAKE_PATH "${TORCHMILL_LIBUV_ROOT}" TORCHMILL_LIBUV_ROOT)
set(ENV{libuv_ROOT} "${TORCHMILL_LIBUV_ROOT}")
set(libuv_DLL_PATH "${TORCHMILL_LIBUV_ROOT}/bin/uv.dll" CACHE FILEPATH "torchmill" FORCE)
if(NOT EXISTS "${libuv_DLL_PATH}")
  message(FATAL_ERROR "torchmill: no bin/uv.dll under TORCHMILL_LIBUV_ROOT='${TORCHMILL_LIBUV_ROOT}'")
endif()
# Next to torch_cpu.dll, which is what Windows looks at first.
install(FILES "${libuv_DLL_PATH}" DESTINATION lib)
