# What `cmake --install` installs for C++ users: headers, archive, and the files for
# find_package(penstock). The component keeps them out of the Python wheel.

include(CMakePackageConfigHelpers)

set(penstock_cmake_dir "${CMAKE_INSTALL_LIBDIR}/cmake/penstock")

install(TARGETS penstock EXPORT penstock-targets
    ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}" COMPONENT devel
    INCLUDES DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}")
if(EXISTS "${PROJECT_SOURCE_DIR}/include/penstock")
    install(DIRECTORY "${PROJECT_SOURCE_DIR}/include/penstock"
        DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}" COMPONENT devel FILES_MATCHING PATTERN "*.hpp")
endif()
install(FILES "${PROJECT_BINARY_DIR}/generated/penstock/version.hpp"
    DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/penstock" COMPONENT devel)
install(EXPORT penstock-targets
    NAMESPACE penstock:: DESTINATION "${penstock_cmake_dir}" COMPONENT devel)

configure_package_config_file(cmake/penstock-config.cmake.in
    "${PROJECT_BINARY_DIR}/penstock-config.cmake" INSTALL_DESTINATION "${penstock_cmake_dir}")
write_basic_package_version_file(
    "${PROJECT_BINARY_DIR}/penstock-config-version.cmake" COMPATIBILITY SameMinorVersion)
install(FILES
    "${PROJECT_BINARY_DIR}/penstock-config.cmake"
    "${PROJECT_BINARY_DIR}/penstock-config-version.cmake"
    DESTINATION "${penstock_cmake_dir}" COMPONENT devel)
