# Compiles sources of a target several at a time (CMake's word for it: a unity build).
#
# Nine tenths of compiling most of PyTorch's sources is reading the same headers again. What is compiled
# in one piece reads them once. CMake has this itself (UNITY_BUILD), but names each source in the files
# that it generates by its absolute path: they would differ from folder to folder, and no compiler cache
# would answer on another machine. Here a source is named from the top of the tree, which is where
# `__FILE__` in it has always begun.
#
#   TORCHMILL_UNITY                  targets
#   TORCHMILL_UNITY_<target>_BATCH   how many sources at a time
#   TORCHMILL_UNITY_<target>_SOURCES which ones: regular expressions on paths from the top of the tree, or,
#                                    for what the build generates, of the build folder
#   TORCHMILL_UNITY_<target>_ALONE   which of them not
#
# A source with flags of its own is left alone: another's must not be compiled with them. So is one that another target
# of its folder has too: to CMake, a source that is only read is so for all of them.

cmake_policy(PUSH)
cmake_policy(VERSION 3.20)

# Whether `text` fits one of the regular expressions in the list called `patterns`.
function(torchmill_fits text patterns out)
  set(${out} FALSE PARENT_SCOPE)
  foreach(pattern IN LISTS ${patterns})
    if(text MATCHES "${pattern}")
      set(${out} TRUE PARENT_SCOPE)
      return()
    endif()
  endforeach()
endfunction()

# The paths of the C++ sources of `target`, in `out`.
function(torchmill_sources target out)
  get_target_property(sources ${target} SOURCES)
  get_target_property(folder ${target} SOURCE_DIR)
  set(paths "")
  foreach(source IN LISTS sources)
    if(source MATCHES "[.](cpp|cc|cxx)$" AND NOT source MATCHES "[$]<")
      cmake_path(ABSOLUTE_PATH source BASE_DIRECTORY "${folder}" NORMALIZE)
      list(APPEND paths "${source}")
    endif()
  endforeach()
  set(${out} "${paths}" PARENT_SCOPE)
endfunction()

function(torchmill_unity target)
  if(NOT TARGET ${target})
    message(FATAL_ERROR "torchmill: the recipe's [unity.${target}] names no target of this build")
  endif()
  torchmill_sources(${target} sources)
  get_target_property(folder ${target} SOURCE_DIR)
  get_property(others DIRECTORY "${folder}" PROPERTY BUILDSYSTEM_TARGETS)
  list(REMOVE_ITEM others ${target})
  set(shared "")
  foreach(other IN LISTS others)
    torchmill_sources(${other} of_other)
    list(APPEND shared ${of_other})
  endforeach()
  set(names "")
  foreach(source IN LISTS sources)
    if(source IN_LIST shared)
      continue()
    endif()
    # The build folder first: it may lie in the tree.
    set(name "")
    foreach(top IN ITEMS "${CMAKE_BINARY_DIR}" "${CMAKE_SOURCE_DIR}")
      cmake_path(IS_PREFIX top "${source}" NORMALIZE below)
      if(below AND NOT name)
        cmake_path(RELATIVE_PATH source BASE_DIRECTORY "${top}" OUTPUT_VARIABLE name)
        set(file_of_${name} "${source}")
      endif()
    endforeach()
    if(NOT name)
      continue()
    endif()
    torchmill_fits("${name}" TORCHMILL_UNITY_${target}_SOURCES wanted)
    torchmill_fits("${name}" TORCHMILL_UNITY_${target}_ALONE alone)
    if(NOT wanted OR alone)
      continue()
    endif()
    foreach(property IN ITEMS COMPILE_FLAGS COMPILE_OPTIONS COMPILE_DEFINITIONS INCLUDE_DIRECTORIES)
      get_source_file_property(own "${source}" TARGET_DIRECTORY ${target} ${property})
      if(NOT own MATCHES "^(NOTFOUND)?$")
        set(alone TRUE)
      endif()
    endforeach()
    foreach(property IN ITEMS HEADER_FILE_ONLY SKIP_UNITY_BUILD_INCLUSION)
      get_source_file_property(own "${source}" TARGET_DIRECTORY ${target} ${property})
      if(own)
        set(alone TRUE)
      endif()
    endforeach()
    get_source_file_property(language "${source}" TARGET_DIRECTORY ${target} LANGUAGE)
    if(NOT language MATCHES "^(NOTFOUND|CXX)?$")
      set(alone TRUE)
    endif()
    if(NOT alone)
      list(APPEND names "${name}")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES names)
  list(LENGTH names count)
  if(count LESS 2)
    message(FATAL_ERROR
      "torchmill: the recipe's [unity.${target}] fits ${count} of the target's sources: nothing to put together")
  endif()
  # By folder, so that what belongs together is together.
  list(SORT names)
  set(number 0)
  set(text "")
  set(left ${TORCHMILL_UNITY_${target}_BATCH})
  list(GET names -1 last)
  foreach(name IN LISTS names)
    string(APPEND text "#include \"${name}\"\n")
    # Still a source of the target: what generates it comes first.
    set_source_files_properties("${file_of_${name}}" TARGET_DIRECTORY ${target}
      PROPERTIES HEADER_FILE_ONLY ON)
    math(EXPR left "${left} - 1")
    if(left EQUAL 0 OR name STREQUAL last)
      set(file "${CMAKE_BINARY_DIR}/unity/${target}/${number}.cpp")
      # Only if it is another: a new time would have it compiled again.
      file(CONFIGURE OUTPUT "${file}" CONTENT "${text}" @ONLY)
      target_sources(${target} PRIVATE "${file}")
      math(EXPR number "${number} + 1")
      set(left ${TORCHMILL_UNITY_${target}_BATCH})
      set(text "")
    endif()
  endforeach()
  target_include_directories(${target} PRIVATE "${CMAKE_BINARY_DIR}" "${CMAKE_SOURCE_DIR}")
  message(STATUS "torchmill: ${count} sources of ${target} are compiled in ${number} pieces")
endfunction()

function(torchmill_unity_of_all)
  foreach(target IN LISTS TORCHMILL_UNITY)
    torchmill_unity(${target})
  endforeach()
endfunction()

# At the end of the top-level list file: the targets exist only then.
cmake_language(DEFER CALL torchmill_unity_of_all)

cmake_policy(POP)
