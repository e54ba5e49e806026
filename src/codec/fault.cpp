// The sentence and the error code of each fault.
#include "penstock/codec.hpp"

namespace penstock::codec {

std::string_view sentence(Fault fault) noexcept {
    switch (fault) {
        case Fault::None:
            return "nothing is wrong";
        case Fault::NotAMessage:
            return "the bytes do not start with a message header";
        case Fault::OtherVersion:
            return "the message was written by another version of the codec";
        case Fault::Truncated:
            return "a length reaches beyond the end of the message";
        case Fault::BadMarker:
            return "a byte stands where no MessagePack value begins with it";
        case Fault::BadExtension:
            return "an extension value contradicts its type";
        case Fault::UnknownExtension:
            return "an extension value has a type that this version does not know";
        case Fault::TooDeep:
            return "more than 256 containers lie inside each other";
        case Fault::Trailing:
            return "there are bytes behind the one value of the structure";
        case Fault::BadTensor:
            return "a tensor's entry contradicts itself or the message's size";
        case Fault::UnknownDType:
            return "a tensor has a dtype that this version does not know";
        case Fault::TooLarge:
            return "the structure has no room for the value";
    }
    return "an unknown fault";
}

ErrorCode error_code(Fault fault) noexcept {
    switch (fault) {
        case Fault::None:
            return ErrorCode::Ok;
        case Fault::OtherVersion:
        case Fault::UnknownExtension:
        case Fault::UnknownDType:
            return ErrorCode::Incompatible;
        case Fault::TooLarge:
            return ErrorCode::TooLarge;
        default:
            return ErrorCode::Corrupt;
    }
}

}  // namespace penstock::codec
