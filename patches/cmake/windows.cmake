# What Windows needs beside torchwright.cmake, which is included after this file.
#
#   TORCHWRIGHT_LIBUV_ROOT   the prefix that holds include/uv.h, lib/uv.lib and bin/uv.dll
#
# Why it exists: PyTorch's list file switches USE_DISTRIBUTED off on Windows unless libuv_ROOT is in the
# environment; and Gloo, which finds a target `uv_a` there already, does not look for uv.dll any more, but
# copies it, from an empty name.

if(NOT WIN32)
  message(FATAL_ERROR "torchwright: windows.cmake is for Windows")
endif()

file(TO_CMAKE_PATH "${TORCHWRIGHT_LIBUV_ROOT}" TORCHWRIGHT_LIBUV_ROOT)
set(ENV{libuv_ROOT} "${TORCHWRIGHT_LIBUV_ROOT}")
set(libuv_DLL_PATH "${TORCHWRIGHT_LIBUV_ROOT}/bin/uv.dll" CACHE FILEPATH "torchwright" FORCE)
if(NOT EXISTS "${libuv_DLL_PATH}")
  message(FATAL_ERROR "torchwright: no bin/uv.dll under TORCHWRIGHT_LIBUV_ROOT='${TORCHWRIGHT_LIBUV_ROOT}'")
endif()
# Next to torch_cpu.dll, which is what Windows looks at first.
install(FILES "${libuv_DLL_PATH}" DESTINATION lib)
