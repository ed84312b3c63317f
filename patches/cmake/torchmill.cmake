# Decouples PyTorch's libuv store from TensorPipe, without editing a source file.
#
# CMake includes this file at the very first project() call of the build: the environment names a
# toolchain file (CMAKE_TOOLCHAIN_FILE, which CMake itself reads), and that one names the including
# module in CMAKE_PROJECT_TOP_LEVEL_INCLUDES. So it depends neither on what a version's setup.py
# hands on nor on the project's name (patches/README.md says why). It needs one input:
#
#   TORCHMILL_LIBUV_ROOT   the prefix that holds include/uv.h and the libuv library
#
# Why it exists: in PyTorch 2.1 and later the macro TORCH_USE_LIBUV is added in one place, inside
# `if(USE_DISTRIBUTED AND USE_TENSORPIPE)`, and never for MSVC. `USE_LIBUV=1` reaches only Gloo.
# So without the bundled TensorPipe the store is built without libuv, silently.
#
# What it does
#   now       makes imported targets for OUR libuv under every name that a sub-project looks for
#             (`uv_a`: Gloo; `uv::uv`: TensorPipe), so that none of them searches, downloads or
#             builds a second copy, and no pkg-config is needed; and has no library ask for an executable
#             stack
#   at the end of the top-level list file (a deferred call: `torch_cpu` exists only then)
#             gives macro, include directory and library to `torch_cpu` and `torch_python`, puts our
#             header before any other libuv's for everyone who uses libuv, and writes what it decided
#             to torchmill-report.txt, with the final value of every variable named in
#             TORCHMILL_FEATURES: the configure stage reads that back

get_property(_tm_ran GLOBAL PROPERTY TORCHMILL_RAN)
if(_tm_ran)
  message(FATAL_ERROR
    "torchmill: its module was included a second time, in the project '${PROJECT_NAME}': "
    "it gives libuv to one project, once")
endif()
set_property(GLOBAL PROPERTY TORCHMILL_RAN TRUE)

cmake_policy(PUSH)
cmake_policy(VERSION 3.19)

foreach(_var IN ITEMS TORCHMILL_LIBUV_ROOT)
  if(NOT DEFINED ${_var} AND DEFINED ENV{${_var}})
    set(${_var} "$ENV{${_var}}")
  endif()
endforeach()
file(TO_CMAKE_PATH "${TORCHMILL_LIBUV_ROOT}" TORCHMILL_LIBUV_ROOT)
if(NOT EXISTS "${TORCHMILL_LIBUV_ROOT}/include/uv.h")
  message(FATAL_ERROR
    "torchmill: no include/uv.h under TORCHMILL_LIBUV_ROOT='${TORCHMILL_LIBUV_ROOT}'")
endif()

# WIN32, UNIX and APPLE are not reliable yet: CMake sets them for the target when it enables the first
# language, which comes after this file. The system's name it knows already.
if(CMAKE_SYSTEM_NAME STREQUAL "Windows")
  # On Windows the product ships uv.dll: the import library is what gets linked.
  set(_tm_names uv libuv)
else()
  set(_tm_names libuv.a libuv_a.a)
endif()
set(_tm_library "")
foreach(_name IN LISTS _tm_names)
  foreach(_suffix IN ITEMS "" ".lib" ".dll.a")
    foreach(_dir IN ITEMS lib lib64)
      set(_candidate "${TORCHMILL_LIBUV_ROOT}/${_dir}/${_name}${_suffix}")
      if(NOT _tm_library AND EXISTS "${_candidate}" AND NOT IS_DIRECTORY "${_candidate}")
        set(_tm_library "${_candidate}")
      endif()
    endforeach()
  endforeach()
endforeach()
if(NOT _tm_library)
  message(FATAL_ERROR "torchmill: no libuv library under '${TORCHMILL_LIBUV_ROOT}'")
endif()
set(TORCHMILL_LIBUV_LIBRARY "${_tm_library}")

# An assembler source that says nothing of its stack (oneDNN's ittptmark64.S) makes the library that it is linked into ask
# for an executable one, and the C library loads no such library from 2.41 on (Debian 13). Nothing here runs on its stack.
if(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  add_link_options("$<HOST_LINK:-Wl$<COMMA>-z$<COMMA>noexecstack>")
endif()

add_library(torchmill_libuv INTERFACE IMPORTED GLOBAL)
set_target_properties(torchmill_libuv PROPERTIES
  INTERFACE_INCLUDE_DIRECTORIES "${TORCHMILL_LIBUV_ROOT}/include")
if(CMAKE_SYSTEM_NAME STREQUAL "Windows")
  set_property(TARGET torchmill_libuv PROPERTY INTERFACE_LINK_LIBRARIES
    "${_tm_library};ws2_32;iphlpapi;psapi;userenv;dbghelp;ole32")
elseif(CMAKE_SYSTEM_NAME STREQUAL "Linux")
  # As libuv's own list file links them; the C library of 2021 and later holds all three itself.
  set_property(TARGET torchmill_libuv PROPERTY INTERFACE_LINK_LIBRARIES
    "${_tm_library};pthread;dl;rt")
else()
  set_property(TARGET torchmill_libuv PROPERTY INTERFACE_LINK_LIBRARIES "${_tm_library}")
endif()

# Gloo links `uv_a` where the target exists, else it asks pkg-config.
if(NOT TARGET uv_a)
  add_library(uv_a INTERFACE IMPORTED GLOBAL)
  # PyTorch's list file copies the first property into the second one, where TensorPipe is on.
  set_target_properties(uv_a PROPERTIES
    INCLUDE_DIRECTORIES "${TORCHMILL_LIBUV_ROOT}/include"
    INTERFACE_INCLUDE_DIRECTORIES "${TORCHMILL_LIBUV_ROOT}/include")
  set_property(TARGET uv_a PROPERTY INTERFACE_LINK_LIBRARIES torchmill_libuv)
endif()
# TensorPipe's Finduv.cmake compiles a copy of libuv of its own unless uv_FOUND is already true.
if(NOT TARGET uv::uv)
  add_library(uv::uv INTERFACE IMPORTED GLOBAL)
  set_property(TARGET uv::uv PROPERTY INTERFACE_LINK_LIBRARIES torchmill_libuv)
endif()
set(uv_FOUND TRUE)
set(uv_VERSION "torchmill")
# On 64-bit Arm PyTorch gives a flag to the copy that TensorPipe would have made: there is none, so the
# flag goes to a library that nothing links.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$" AND NOT TARGET tensorpipe_uv)
  file(WRITE "${CMAKE_BINARY_DIR}/torchmill-empty.c" "extern int torchmill_empty;\n")
  add_library(tensorpipe_uv STATIC EXCLUDE_FROM_ALL "${CMAKE_BINARY_DIR}/torchmill-empty.c")
endif()

# All targets that are made below `folder`, in `out`.
function(torchmill_all_targets folder out)
  get_property(all DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
  get_property(below DIRECTORY "${folder}" PROPERTY SUBDIRECTORIES)
  foreach(next IN LISTS below)
    torchmill_all_targets("${next}" more)
    list(APPEND all ${more})
  endforeach()
  set(${out} "${all}" PARENT_SCOPE)
endfunction()

# A tree from upstream has a libuv of its own below TensorPipe, whose header stands first for every
# target (`include_directories(BEFORE SYSTEM …)`). Who links our library compiles against our header.
function(torchmill_our_header_first)
  torchmill_all_targets("${CMAKE_SOURCE_DIR}" targets)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    get_target_property(links ${target} LINK_LIBRARIES)
    if(links AND type MATCHES "^(STATIC|SHARED|MODULE|OBJECT)_LIBRARY$|^EXECUTABLE$"
       AND links MATCHES "(^|;|:)(uv_a|uv::uv|torchmill_libuv)(;|>|$)")
      target_include_directories(${target} BEFORE PRIVATE "${TORCHMILL_LIBUV_ROOT}/include")
    endif()
  endforeach()
endfunction()

function(torchmill_decouple_libuv)
  set(report "${CMAKE_BINARY_DIR}/torchmill-report.txt")
  set(lines "libuv_root=${TORCHMILL_LIBUV_ROOT}\n")
  string(APPEND lines "libuv_library=${TORCHMILL_LIBUV_LIBRARY}\n")
  string(APPEND lines "project=${CMAKE_PROJECT_NAME}\n")
  string(TOLOWER "${CMAKE_PROJECT_NAME}" project)
  if(NOT project STREQUAL "torch")
    file(WRITE "${report}" "${lines}")
    message(FATAL_ERROR
      "torchmill: the tree's project is called '${CMAKE_PROJECT_NAME}', not Torch: it is not PyTorch's source")
  endif()
  if(NOT TARGET torch_cpu)
    file(WRITE "${report}" "${lines}torch_cpu=missing\n")
    message(FATAL_ERROR "torchmill: the target torch_cpu does not exist: nothing to give libuv to")
  endif()
  if(NOT USE_DISTRIBUTED)
    file(WRITE "${report}" "${lines}torch_cpu=no-distributed\n")
    message(FATAL_ERROR "torchmill: USE_DISTRIBUTED is off: there is no TCPStore to give libuv to")
  endif()
  foreach(target IN ITEMS torch_cpu torch_python)
    if(TARGET ${target})
      target_compile_definitions(${target} PRIVATE TORCH_USE_LIBUV)
      # BEFORE: an older uv.h of the machine or of a submodule must not win.
      target_include_directories(${target} BEFORE PRIVATE "${TORCHMILL_LIBUV_ROOT}/include")
      string(APPEND lines "${target}=libuv\n")
    endif()
  endforeach()
  torchmill_our_header_first()
  foreach(feature IN LISTS TORCHMILL_FEATURES)
    string(APPEND lines "feature:${feature}=${${feature}}\n")
  endforeach()
  # A library that is linked with the build folder's run path and edited when it is installed keeps
  # the length of that path, and a build id made from it: link with the final run path instead.
  torchmill_all_targets("${CMAKE_SOURCE_DIR}" targets)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    if(type STREQUAL "SHARED_LIBRARY" OR type STREQUAL "MODULE_LIBRARY" OR target STREQUAL "torch_shm_manager")
      set_target_properties(${target} PROPERTIES
        BUILD_WITH_INSTALL_RPATH ON
        INSTALL_RPATH_USE_LINK_PATH OFF)
    endif()
  endforeach()
  # XNNPACK's kernels for its own tests: three quarters of its objects, linked into nothing.
  if(TARGET microkernels-all)
    set_target_properties(microkernels-all PROPERTIES EXCLUDE_FROM_ALL ON)
  endif()
  # The library itself only where the store is compiled: one copy in the process.
  target_link_libraries(torch_cpu PRIVATE torchmill_libuv)
  # Nothing in PyTorch asks libuv for its version: link the answer in, so that whoever inspects the
  # library can read which libuv it holds.
  if(APPLE)
    target_link_options(torch_cpu PRIVATE "LINKER:-u,_uv_version")
  elseif(UNIX)
    target_link_options(torch_cpu PRIVATE "LINKER:-u,uv_version")
  endif()
  file(WRITE "${report}" "${lines}")
  message(STATUS "torchmill: torch_cpu has the libuv store (${TORCHMILL_LIBUV_LIBRARY})")
endfunction()

cmake_language(DEFER CALL torchmill_decouple_libuv)

cmake_policy(POP)
