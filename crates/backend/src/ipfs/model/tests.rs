use super::*;

const V0: &str = "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPVLT";
const V1: &str = "bafybeigdyrzt5sfp7udm7hu76uh7y26nf3efuylqabf3oclgtqy55fbzdi";

fn inspected(kind: DocumentType, content: &[u8], piece: usize) -> Result<u64, Unfit> {
    let mut inspector = Inspector::new(kind, &content[..content.len().min(HEAD_BYTES)])?;
    for piece in content.chunks(piece) {
        inspector.inspect(piece)?;
    }
    inspector.finish()
}

#[test]
fn what_a_document_is_called_must_be_what_its_first_bytes_are() {
    let png: &[u8] = &[0x89, b'P', b'N', b'G', 0x0d, 0x0a, 0x1a, 0x0a, 0, 0];
    let jpeg: &[u8] = &[0xff, 0xd8, 0xff, 0xe0, 0, 0x10];
    let pdf: &[u8] = b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n";
    let real = [(DocumentType::Png, png), (DocumentType::Jpeg, jpeg), (DocumentType::Pdf, pdf)];
    for (declared, _) in real {
        for (kind, content) in real {
            assert_eq!(inspected(declared, content, 4).is_ok(), declared == kind, "{declared:?} {kind:?}");
        }
        for other in [&b"plain words"[..], b"MZ\x90\0", b"<html>", b"\x7fELF"] {
            assert!(inspected(declared, other, 4).is_err(), "{declared:?} {other:?}");
        }
        assert_eq!(inspected(declared, b"", 4), Err(Unfit::Empty));
    }
}

#[test]
fn text_is_utf_8_to_its_last_byte_however_it_is_cut() {
    let good = "Zins: 3 %\r\n\t利率 🚀 BM".repeat(3);
    for piece in 1..7 {
        assert_eq!(inspected(DocumentType::Text, good.as_bytes(), piece), Ok(good.len() as u64));
        let cut = &good.as_bytes()[..good.len() - 4]; // In the middle of the rocket.
        assert_eq!(inspected(DocumentType::Text, cut, piece), Err(Unfit::NotText), "{piece}");
        for bad in [&b"a\0b"[..], b"a\xffb", b"caf\xe9 au lait", b"a\x1b[31m", b"\xed\xa0\x80"] {
            assert_eq!(inspected(DocumentType::Text, bad, piece), Err(Unfit::NotText), "{bad:?}");
        }
    }
    for ordinary in ["BM stands for Berlin", "MZ", "ID3 tags explained", "x"] {
        assert!(inspected(DocumentType::Text, ordinary.as_bytes(), 3).is_ok(), "{ordinary}");
    }
    for other in ["%PDF-1.4 but all ASCII", " <html><body>", "<?xml version=\"1.0\"?>"] {
        let refused = inspected(DocumentType::Text, other.as_bytes(), 3);
        assert!(matches!(refused, Err(Unfit::Mismatch { .. })), "{other}: {refused:?}");
    }
}

#[test]
fn ten_mebibytes_are_accepted_and_one_byte_more_is_not() {
    let mut inspector = Inspector::new(DocumentType::Pdf, b"%PDF-1.7").unwrap();
    for _ in 0..MAX_BYTES / 8 {
        inspector.inspect(b"12345678").unwrap();
    }
    assert_eq!(inspector.inspect(b"1"), Err(Unfit::TooLarge));
}

#[test]
fn content_ids_of_both_versions_are_accepted_in_one_spelling_and_nothing_else_is() {
    assert_eq!(ContentId::parse(V0).unwrap().as_str(), V0);
    assert_eq!(ContentId::parse(V1).unwrap().as_str(), V1);
    assert_eq!(ContentId::parse(&V1.to_uppercase()).unwrap().as_str(), V1);
    let bad =
        ["", "Qm", "QmYwAPJzv5CZsnA625s3Xf2nemtYgPpHdWEz79ojWKPVL", "../../pinning/unpin", "hello", "0"];
    let long = format!("{V1}{V1}{V1}");
    let tricky = [format!("/ipfs/{V0}"), format!("{V0}?x=1"), format!("{V0}/a"), format!(" {V0}"), long];
    for text in bad.into_iter().chain(tricky.iter().map(String::as_str)) {
        assert_eq!(ContentId::parse(text), None, "{text}");
    }
}

#[test]
fn a_file_name_has_no_folders_no_control_characters_and_an_end() {
    assert_eq!(file_name("C:\\docs\\contract.pdf"), "contract.pdf");
    assert_eq!(file_name("../../etc/passwd"), "passwd");
    assert_eq!(file_name("a\r\nX-Evil: 1\0.txt"), "aX-Evil: 1.txt");
    assert_eq!((file_name(""), file_name("a/")), ("document".to_owned(), "document".to_owned()));
    assert_eq!(file_name(&"é".repeat(200)).len(), 254);
}

#[test]
fn the_envelope_has_the_length_it_was_said_to_have_for_every_file_within_its_bound() {
    for bytes in [0, 1, 8_191, 8_192, 8_193, 100_000] {
        let file = FilePart { name: "a\"b.txt", kind: DocumentType::Text, bound: 100_000 };
        let envelope = Envelope::new("bnd", &[("network", "public")], file, ("keyvalues", "{}"));
        let (length, before) = (envelope.length(), envelope.before());
        let after: Vec<u8> = envelope.after(bytes).flatten().collect();
        assert_eq!(before.len() as u64 + bytes + after.len() as u64, length);
        let before = String::from_utf8(before.to_vec()).unwrap();
        assert!(
            before.starts_with("--bnd\r\nContent-Disposition: form-data; name=\"network\"\r\n\r\npublic")
        );
        assert!(before.ends_with("filename=\"a%22b.txt\"\r\nContent-Type: text/plain\r\n\r\n"), "{before}");
        let after = String::from_utf8(after).unwrap();
        let json =
            after.strip_prefix("\r\n--bnd\r\nContent-Disposition: form-data; name=\"keyvalues\"\r\n\r\n");
        let json = json.and_then(|rest| rest.strip_suffix("\r\n--bnd--\r\n")).unwrap();
        assert_eq!(json.trim_end_matches(' '), "{}");
    }
}
