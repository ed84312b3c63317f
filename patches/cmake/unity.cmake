# Compiles sources of a target several at a time (CMake's word for it: a unity build).
#
# Nine tenths of compiling most of PyTorch's sources is reading the same headers again. What is compiled
# in one piece reads them once. CMake has this itself (UNITY_BUILD), but names each source in the files
# that it generates by its absolute path: they would differ from folder to folder, and no compiler cache
# would answer on another machine. Here a source is named from the top of the tree, which is where
# `__FILE__` in it has always begun.
#
#   TORCHMILL_UNITY                    targets
#   TORCHMILL_UNITY_<target>_BATCH     how many sources at a time
#   TORCHMILL_UNITY_<target>_SOURCES   which ones: regular expressions on paths from the top of the tree, or,
#                                      for what the build generates, of the build folder
#   TORCHMILL_UNITY_<target>_ALONE     which of them not
#   TORCHMILL_UNITY_<target>_UNDEFINE  macros that sources leave behind: undefined after each
#   TORCHMILL_UNITY_<target>_RENAME    names that several sources give something of their own, known in their file only:
#                                      another one in each source of a piece
#
# A piece holds sources that fit the same pattern, so many of the sorted list of them. One that is to be alone keeps its
# place in the list: taking it out makes its own piece another, and the compiler cache answers for all the rest.
#
# A source with flags of its own is in no list: another's must not be compiled with them. So is one that another target
# of its folder has too: to CMake, a source that is only read is so for all of them.

cmake_policy(PUSH)
cmake_policy(VERSION 3.20)

# The place of the first regular expression that `text` fits in the list called `patterns`, or -1.
function(torchmill_fits text patterns out)
  set(place 0)
  foreach(pattern IN LISTS ${patterns})
    if(text MATCHES "${pattern}")
      set(${out} ${place} PARENT_SCOPE)
      return()
    endif()
    math(EXPR place "${place} + 1")
  endforeach()
  set(${out} -1 PARENT_SCOPE)
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
  set(places "")
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
    torchmill_fits("${name}" TORCHMILL_UNITY_${target}_SOURCES place)
    if(place LESS 0)
      continue()
    endif()
    set(by_itself FALSE)
    foreach(property IN ITEMS COMPILE_FLAGS COMPILE_OPTIONS COMPILE_DEFINITIONS INCLUDE_DIRECTORIES)
      get_source_file_property(own "${source}" TARGET_DIRECTORY ${target} ${property})
      if(NOT own MATCHES "^(NOTFOUND)?$")
        set(by_itself TRUE)
      endif()
    endforeach()
    foreach(property IN ITEMS HEADER_FILE_ONLY SKIP_UNITY_BUILD_INCLUSION)
      get_source_file_property(own "${source}" TARGET_DIRECTORY ${target} ${property})
      if(own)
        set(by_itself TRUE)
      endif()
    endforeach()
    get_source_file_property(language "${source}" TARGET_DIRECTORY ${target} LANGUAGE)
    if(NOT language MATCHES "^(NOTFOUND|CXX)?$")
      set(by_itself TRUE)
    endif()
    if(NOT by_itself)
      list(APPEND places ${place})
      list(APPEND names_of_${place} "${name}")
    endif()
  endforeach()
  list(REMOVE_DUPLICATES places)
  set(count 0)
  set(number 0)
  foreach(place IN LISTS places)
    # By folder, so that what belongs together is together.
    list(REMOVE_DUPLICATES names_of_${place})
    list(SORT names_of_${place})
    list(LENGTH names_of_${place} length)
    math(EXPR last "${length} - 1")
    set(piece 0)
    foreach(first RANGE 0 ${last} ${TORCHMILL_UNITY_${target}_BATCH})
      list(SUBLIST names_of_${place} ${first} ${TORCHMILL_UNITY_${target}_BATCH} names)
      set(file "${CMAKE_BINARY_DIR}/unity/${target}/${place}-${piece}.cpp")
      math(EXPR piece "${piece} + 1")
      set(together "")
      foreach(name IN LISTS names)
        torchmill_fits("${name}" TORCHMILL_UNITY_${target}_ALONE alone)
        if(alone LESS 0)
          list(APPEND together "${name}")
        endif()
      endforeach()
      list(LENGTH together size)
      if(size LESS 2)
        continue()
      endif()
      set(text "")
      set(nth 0)
      foreach(name IN LISTS together)
        foreach(own IN LISTS TORCHMILL_UNITY_${target}_RENAME)
          string(APPEND text "#define ${own} ${own}_${nth}\n")
        endforeach()
        math(EXPR nth "${nth} + 1")
        string(APPEND text "#include \"${name}\"\n")
        foreach(macro IN LISTS TORCHMILL_UNITY_${target}_UNDEFINE TORCHMILL_UNITY_${target}_RENAME)
          string(APPEND text "#undef ${macro}\n")
        endforeach()
        # Still a source of the target: what generates it comes first.
        set_source_files_properties("${file_of_${name}}" TARGET_DIRECTORY ${target} PROPERTIES HEADER_FILE_ONLY ON)
      endforeach()
      # Only if it is another: a new time would have it compiled again.
      file(CONFIGURE OUTPUT "${file}" CONTENT "${text}" @ONLY)
      target_sources(${target} PRIVATE "${file}")
      math(EXPR count "${count} + ${size}")
      math(EXPR number "${number} + 1")
    endforeach()
  endforeach()
  if(number EQUAL 0)
    message(FATAL_ERROR "torchmill: [unity.${target}] fits fewer than two sources: nothing to put together")
  endif()
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
