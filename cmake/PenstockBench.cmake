# One program for each source in bench/cpp, in the bench/ folder of the build tree. Peers that are not
# installed are left out: a benchmark asks for them with the PENSTOCK_HAVE_* definitions.

file(GLOB penstock_bench_sources CONFIGURE_DEPENDS "${PROJECT_SOURCE_DIR}/bench/cpp/*.cpp")

find_path(PENSTOCK_BOOST_INCLUDE_DIR boost/interprocess/ipc/message_queue.hpp)
find_path(PENSTOCK_ZMQ_INCLUDE_DIR zmq.h)
find_library(PENSTOCK_ZMQ_LIBRARY zmq)
mark_as_advanced(PENSTOCK_BOOST_INCLUDE_DIR PENSTOCK_ZMQ_INCLUDE_DIR PENSTOCK_ZMQ_LIBRARY)

foreach(source IN LISTS penstock_bench_sources)
    get_filename_component(name "${source}" NAME_WE)
    penstock_internal_executable(${name} "${source}")
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY "${PROJECT_BINARY_DIR}/bench")
    if(PENSTOCK_BOOST_INCLUDE_DIR)
        target_include_directories(${name} SYSTEM PRIVATE "${PENSTOCK_BOOST_INCLUDE_DIR}")
        target_compile_definitions(${name} PRIVATE PENSTOCK_HAVE_BOOST=1)
    endif()
    if(PENSTOCK_ZMQ_INCLUDE_DIR AND PENSTOCK_ZMQ_LIBRARY)
        target_include_directories(${name} SYSTEM PRIVATE "${PENSTOCK_ZMQ_INCLUDE_DIR}")
        target_link_libraries(${name} PRIVATE "${PENSTOCK_ZMQ_LIBRARY}")
        target_compile_definitions(${name} PRIVATE PENSTOCK_HAVE_ZMQ=1)
    endif()
    if(PENSTOCK_HAS_REDIS)
        target_link_libraries(${name} PRIVATE penstock::hiredis)
        target_compile_definitions(${name} PRIVATE PENSTOCK_HAVE_HIREDIS=1)
    endif()
endforeach()
