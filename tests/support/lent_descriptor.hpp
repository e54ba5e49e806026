// A descriptor passed from one process to another over a Unix socket.
#pragma once

#include <sys/socket.h>

#include <cstring>

namespace penstock::trust {

// One byte, with room for a descriptor.
struct DescriptorMessage {
    DescriptorMessage() {
        message.msg_iov = &data;
        message.msg_iovlen = 1;
        message.msg_control = control;
        message.msg_controllen = sizeof control;
    }
    DescriptorMessage(const DescriptorMessage&) = delete;
    DescriptorMessage& operator=(const DescriptorMessage&) = delete;

    char byte = 'd';
    iovec data{&byte, 1};
    alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
    msghdr message{};
};

// False: it was not sent.
inline bool send_descriptor(int socket, int descriptor) {
    DescriptorMessage mail;
    cmsghdr* const header = CMSG_FIRSTHDR(&mail.message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof descriptor);
    std::memcpy(CMSG_DATA(header), &descriptor, sizeof descriptor);
    return ::sendmsg(socket, &mail.message, 0) == 1;
}

// The received descriptor, owned by the caller and close-on-exec; -1: none came.
inline int receive_descriptor(int socket) {
    DescriptorMessage mail;
    int descriptor = -1;
    if (::recvmsg(socket, &mail.message, MSG_CMSG_CLOEXEC) != 1) return descriptor;
    std::memcpy(&descriptor, CMSG_DATA(CMSG_FIRSTHDR(&mail.message)), sizeof descriptor);
    return descriptor;
}

}  // namespace penstock::trust
