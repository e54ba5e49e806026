// Status, Error and the names of the codes.
#include "penstock/error.hpp"

#include <array>

#include "penstock/segment.hpp"

namespace penstock {

std::string_view to_string(ErrorCode code) noexcept {
    constexpr std::array<std::string_view, 18> kNames = {"Ok",
                                                         "Timeout",
                                                         "Closed",
                                                         "PeerDied",
                                                         "NotFound",
                                                         "AlreadyExists",
                                                         "NoSpace",
                                                         "TooLarge",
                                                         "Incompatible",
                                                         "Corrupt",
                                                         "Cancelled",
                                                         "InvalidName",
                                                         "InvalidArgument",
                                                         "PermissionDenied",
                                                         "Busy",
                                                         "WrongProcess",
                                                         "System",
                                                         "Expired"};
    const auto index = static_cast<std::size_t>(code);
    return index < kNames.size() ? kNames[index] : "Unknown";
}

std::string_view to_string(Kind kind) noexcept {
    switch (kind) {
        case Kind::Broadcast:
            return "broadcast";
        case Kind::Queue:
            return "queue";
        case Kind::Store:
            return "store";
        case Kind::Service:
            return "service";
    }
    return "unknown";
}

Status::Status(ErrorCode code, std::string sentence, int peer, const Death& death) noexcept
    : code_(code), peer_(peer) {
    try {
        details_ = std::make_unique<const Details>(Details{std::move(sentence), death});
    } catch (...) {  // no memory for a sentence: only the code remains
        details_.reset();
    }
}

Status Status::closed_here(std::string sentence) noexcept {
    Status status(ErrorCode::Closed, std::move(sentence));
    status.is_own_ = true;
    return status;
}

std::string_view Status::message() const noexcept {
    return details_ ? std::string_view(details_->sentence) : to_string(code_);
}

Status::Status(const Status& other) noexcept
    : code_(other.code_), is_own_(other.is_own_), peer_(other.peer_) {
    try {
        if (other.details_) details_ = std::make_unique<const Details>(*other.details_);
    } catch (...) {  // as in the constructor
        details_.reset();
    }
}

void Status::or_throw() const {
    if (!is_ok()) throw Error(code_, std::string(message()), peer_, closed_by(), death());
}

}  // namespace penstock
