//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// Powers from number 16, 12, 8 and 4 on.
#define POWER16 (vaes_powers+0)
#define POWER12 (vaes_powers+64)
#define POWER8 (vaes_powers+128)
#define POWER4 (vaes_powers+192)
#define POWER1 (vaes_powers+240)

// x^63 + x^62 + x^57, in the low half: the part of the field's polynomial that a reduction multiplies by.
DATA poly<>+0(SB)/8, $0xc200000000000000
DATA poly<>+8(SB)/8, $0
GLOBL poly<>(SB), RODATA|NOPTR, $16

// The bytes of a block in reverse order.
DATA reverse<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+8(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $16

// Increments of counters: 0 to 3, and four times 4, and 16.
DATA counts<>+0(SB)/8, $0
DATA counts<>+8(SB)/8, $0
DATA counts<>+16(SB)/8, $1
DATA counts<>+24(SB)/8, $0
DATA counts<>+32(SB)/8, $2
DATA counts<>+40(SB)/8, $0
DATA counts<>+48(SB)/8, $3
DATA counts<>+56(SB)/8, $0
DATA counts<>+64(SB)/8, $4
DATA counts<>+72(SB)/8, $0
DATA counts<>+80(SB)/8, $16
DATA counts<>+88(SB)/8, $0
GLOBL counts<>(SB), RODATA|NOPTR, $96

// func subWord(w uint32) uint32
TEXT ·subWord(SB), NOSPLIT, $0-12
	MOVL w+0(FP), AX
	MOVQ AX, X0
	PSHUFD $0, X0, X0 // four equal columns: no row is seen to shift
	PXOR X1, X1
	AESENCLAST X1, X0
	MOVQ X0, AX
	MOVL AX, ret+8(FP)
	RET

// MULTIPLY sets lo, mid, hi to the unreduced products of the blocks in a and b; t is lost. REDUCE makes of them the
// element out, in each lane: a Montgomery step of 64 bits, twice. p has poly in each lane. All are registers of one size.
#define MULTIPLY(a, b, lo, mid, hi, t) \
	VPCLMULQDQ $0x01, b, a, mid; \
	VPCLMULQDQ $0x10, b, a, t; \
	VPCLMULQDQ $0x00, b, a, lo; \
	VPCLMULQDQ $0x11, b, a, hi; \
	VPXORQ t, mid, mid

#define REDUCE(lo, mid, hi, p, t, out) \
	VPSLLDQ $8, mid, t; \
	VPSRLDQ $8, mid, mid; \
	VPXORQ t, lo, lo; \
	VPXORQ mid, hi, hi; \
	VPCLMULQDQ $0x00, p, lo, t; \
	VPSHUFD $0x4e, lo, lo; \
	VPXORQ t, lo, lo; \
	VPCLMULQDQ $0x00, p, lo, t; \
	VPSHUFD $0x4e, lo, lo; \
	VPTERNLOGQ $0x96, t, hi, lo; \
	VMOVDQA64 lo, out

// func expandPowers(key *vaes, h *block)
TEXT ·expandPowers(SB), NOSPLIT, $0-16
	MOVQ key+0(FP), AX
	MOVQ h+8(FP), BX
	VBROADCASTI64X2 poly<>(SB), Z20
	VMOVDQU64 (BX), X0

	// Y0 = H^2 | H, in the order of rising addresses.
	MULTIPLY(X0, X0, X4, X5, X6, X7)
	REDUCE(X4, X5, X6, X20, X7, X1)
	VINSERTI128 $1, X0, Y1, Y0

	// Z0 = H^4 to H.
	VINSERTI128 $1, X1, Y1, Y1
	MULTIPLY(Y0, Y1, Y4, Y5, Y6, Y7)
	REDUCE(Y4, Y5, Y6, Y20, Y7, Y1)
	VINSERTI64X4 $1, Y0, Z1, Z0

	// Z2 = H^8 to H^5.
	VSHUFI64X2 $0, Z0, Z0, Z1
	MULTIPLY(Z0, Z1, Z4, Z5, Z6, Z7)
	REDUCE(Z4, Z5, Z6, Z20, Z7, Z2)

	// Z3 = H^12 to H^9, Z1 = H^16 to H^13.
	VSHUFI64X2 $0, Z2, Z2, Z1
	MULTIPLY(Z0, Z1, Z4, Z5, Z6, Z7)
	MULTIPLY(Z2, Z1, Z8, Z9, Z10, Z11)
	REDUCE(Z4, Z5, Z6, Z20, Z7, Z3)
	REDUCE(Z8, Z9, Z10, Z20, Z11, Z1)
	VMOVDQU64 Z1, POWER16(AX)
	VMOVDQU64 Z3, POWER12(AX)
	VMOVDQU64 Z2, POWER8(AX)
	VMOVDQU64 Z0, POWER4(AX)
	VZEROUPPER
	RET

// func hashBlocks(key *vaes, acc *block, data *byte, n int)
TEXT ·hashBlocks(SB), NOSPLIT, $0-32
	MOVQ key+0(FP), AX
	MOVQ acc+8(FP), BX
	MOVQ data+16(FP), SI
	MOVQ n+24(FP), CX
	VMOVDQU64 poly<>(SB), X20
	VMOVDQU64 reverse<>(SB), X31
	VMOVDQU64 POWER1(AX), X1
	VMOVDQU64 (BX), X0

loop:
	VMOVDQU64 (SI), X2
	VPSHUFB X31, X2, X2
	VPXORQ X2, X0, X0
	MULTIPLY(X0, X1, X4, X5, X6, X7)
	REDUCE(X4, X5, X6, X20, X7, X0)
	ADDQ $16, SI
	SUBQ $1, CX
	JNZ loop
	VMOVDQU64 X0, (BX)
	VZEROUPPER
	RET

// ADDPRODUCTS adds to Z12, Z13, Z14 the products of two pairs of registers.
#define ADDPRODUCTS(a, p, b, q) \
	VPCLMULQDQ $0x01, p, a, Z16; \
	VPCLMULQDQ $0x10, p, a, Z17; \
	VPCLMULQDQ $0x00, p, a, Z18; \
	VPCLMULQDQ $0x11, p, a, Z19; \
	VPCLMULQDQ $0x01, q, b, Z21; \
	VPCLMULQDQ $0x10, q, b, Z22; \
	VPCLMULQDQ $0x00, q, b, Z23; \
	VPCLMULQDQ $0x11, q, b, Z24; \
	VPTERNLOGQ $0x96, Z16, Z17, Z13; \
	VPTERNLOGQ $0x96, Z18, Z23, Z12; \
	VPTERNLOGQ $0x96, Z19, Z24, Z14; \
	VPTERNLOGQ $0x96, Z21, Z22, Z13

#define CLEARPRODUCTS \
	VPXORQ Z12, Z12, Z12; \
	VPXORQ Z13, Z13, Z13; \
	VPXORQ Z14, Z14, Z14

// The counters of the next group, in Z26 to Z29, become the input of AES in Z0 to Z3, and advance.
#define COUNT \
	VBROADCASTI64X2 vaes_enc(AX), Z30; \
	VPSHUFB Z31, Z26, Z0; \
	VPSHUFB Z31, Z27, Z1; \
	VPSHUFB Z31, Z28, Z2; \
	VPSHUFB Z31, Z29, Z3; \
	VPADDD Z25, Z26, Z26; \
	VPADDD Z25, Z27, Z27; \
	VPADDD Z25, Z28, Z28; \
	VPADDD Z25, Z29, Z29; \
	VPXORQ Z30, Z0, Z0; \
	VPXORQ Z30, Z1, Z1; \
	VPXORQ Z30, Z2, Z2; \
	VPXORQ Z30, Z3, Z3

#define ROUND(op, i) \
	VBROADCASTI64X2 (vaes_enc+16*i)(AX), Z30; \
	op Z30, Z0, Z0; \
	op Z30, Z1, Z1; \
	op Z30, Z2, Z2; \
	op Z30, Z3, Z3

#define KEYSTREAM \
	COUNT; \
	ROUND(VAESENC, 1); \
	ROUND(VAESENC, 2); \
	ROUND(VAESENC, 3); \
	ROUND(VAESENC, 4); \
	ROUND(VAESENC, 5); \
	ROUND(VAESENC, 6); \
	ROUND(VAESENC, 7); \
	ROUND(VAESENC, 8); \
	ROUND(VAESENC, 9); \
	ROUND(VAESENCLAST, 10)

// The keystream of a group, while the one in Z4 to Z7 is added to the hash in Z15. All groups but the last multiply the
// four lanes of a register by one power, in Z8 to Z11, and keep four hashes, each over every fourth block; the last
// group multiplies each block by its own power and adds the lanes.
#define KEYSTREAMANDHASH \
	COUNT; \
	CLEARPRODUCTS; \
	ROUND(VAESENC, 1); \
	ROUND(VAESENC, 2); \
	VPXORQ Z15, Z4, Z4; \
	ADDPRODUCTS(Z7, Z11, Z6, Z10); \
	ROUND(VAESENC, 3); \
	ROUND(VAESENC, 4); \
	ROUND(VAESENC, 5); \
	ADDPRODUCTS(Z5, Z9, Z4, Z8); \
	ROUND(VAESENC, 6); \
	ROUND(VAESENC, 7); \
	REDUCE(Z12, Z13, Z14, Z20, Z16, Z15); \
	ROUND(VAESENC, 8); \
	ROUND(VAESENC, 9); \
	ROUND(VAESENCLAST, 10)

#define XORGROUP \
	VPXORQ (SI), Z0, Z0; \
	VPXORQ 64(SI), Z1, Z1; \
	VPXORQ 128(SI), Z2, Z2; \
	VPXORQ 192(SI), Z3, Z3; \
	VMOVDQU64 Z0, (DI); \
	VMOVDQU64 Z1, 64(DI); \
	VMOVDQU64 Z2, 128(DI); \
	VMOVDQU64 Z3, 192(DI); \
	ADDQ $256, SI; \
	ADDQ $256, DI

// A group that was written, or is to be read, as numbers.
#define TAKEWRITTEN \
	VPSHUFB Z31, Z0, Z4; \
	VPSHUFB Z31, Z1, Z5; \
	VPSHUFB Z31, Z2, Z6; \
	VPSHUFB Z31, Z3, Z7

#define TAKEREAD \
	VMOVDQU64 (SI), Z4; \
	VMOVDQU64 64(SI), Z5; \
	VMOVDQU64 128(SI), Z6; \
	VMOVDQU64 192(SI), Z7; \
	VPSHUFB Z31, Z4, Z4; \
	VPSHUFB Z31, Z5, Z5; \
	VPSHUFB Z31, Z6, Z6; \
	VPSHUFB Z31, Z7, Z7

#define COUNTERS \
	VBROADCASTI64X2 reverse<>(SB), Z31; \
	VBROADCASTI64X2 (BX), Z26; \
	VPADDD counts<>(SB), Z26, Z26; \
	VBROADCASTI64X2 counts<>+64(SB), Z25; \
	VPADDD Z25, Z26, Z27; \
	VPADDD Z25, Z27, Z28; \
	VPADDD Z25, Z28, Z29; \
	VBROADCASTI64X2 counts<>+80(SB), Z25

#define BEGIN \
	COUNTERS; \
	VBROADCASTI64X2 poly<>(SB), Z20; \
	VMOVDQU64 (CX), X15; \
	VBROADCASTI64X2 POWER16(AX), Z8; \
	VBROADCASTI64X2 POWER12(AX), Z9; \
	VBROADCASTI64X2 POWER8(AX), Z10; \
	VBROADCASTI64X2 POWER4(AX), Z11

// The last group, in Z4 to Z7.
#define FINISH \
	VMOVDQU64 POWER16(AX), Z8; \
	VMOVDQU64 POWER12(AX), Z9; \
	VMOVDQU64 POWER8(AX), Z10; \
	VMOVDQU64 POWER4(AX), Z11; \
	CLEARPRODUCTS; \
	VPXORQ Z15, Z4, Z4; \
	ADDPRODUCTS(Z7, Z11, Z6, Z10); \
	ADDPRODUCTS(Z5, Z9, Z4, Z8); \
	VEXTRACTI64X4 $1, Z13, Y17; \
	VEXTRACTI64X4 $1, Z12, Y16; \
	VEXTRACTI64X4 $1, Z14, Y18; \
	VPXORQ Y17, Y13, Y13; \
	VPXORQ Y16, Y12, Y12; \
	VPXORQ Y18, Y14, Y14; \
	VEXTRACTI64X2 $1, Y13, X17; \
	VEXTRACTI64X2 $1, Y12, X16; \
	VEXTRACTI64X2 $1, Y14, X18; \
	VPXORQ X17, X13, X13; \
	VPXORQ X16, X12, X12; \
	VPXORQ X18, X14, X14; \
	REDUCE(X12, X13, X14, X20, X16, X0); \
	VMOVDQU64 X0, (CX); \
	VMOVDQU64 X26, (BX); \
	VZEROUPPER

// func sealGroups(key *vaes, ctr, acc *block, dst, src *byte, groups int)
TEXT ·sealGroups(SB), NOSPLIT, $0-48
	MOVQ key+0(FP), AX
	MOVQ ctr+8(FP), BX
	MOVQ acc+16(FP), CX
	MOVQ dst+24(FP), DI
	MOVQ src+32(FP), SI
	MOVQ groups+40(FP), DX
	BEGIN
	KEYSTREAM
	XORGROUP
	TAKEWRITTEN
	SUBQ $1, DX
	JEQ final

loop:
	KEYSTREAMANDHASH
	XORGROUP
	TAKEWRITTEN
	SUBQ $1, DX
	JNE loop

final:
	FINISH
	RET

// func openGroups(key *vaes, ctr, acc *block, dst, src *byte, groups int)
TEXT ·openGroups(SB), NOSPLIT, $0-48
	MOVQ key+0(FP), AX
	MOVQ ctr+8(FP), BX
	MOVQ acc+16(FP), CX
	MOVQ dst+24(FP), DI
	MOVQ src+32(FP), SI
	MOVQ groups+40(FP), DX
	BEGIN
	SUBQ $1, DX
	JEQ final

loop:
	TAKEREAD
	KEYSTREAMANDHASH
	XORGROUP
	SUBQ $1, DX
	JNE loop

final:
	TAKEREAD
	KEYSTREAM
	XORGROUP
	FINISH
	RET

// func xorTail(key *vaes, ctr *block, dst, src *byte, n int)
//
// The masks have a bit for each byte. BZHI takes what is negative for large, so that becomes zero first.
TEXT ·xorTail(SB), NOSPLIT, $0-40
	MOVQ key+0(FP), AX
	MOVQ ctr+8(FP), BX
	MOVQ dst+16(FP), DI
	MOVQ src+24(FP), SI
	MOVQ n+32(FP), CX
	COUNTERS
	KEYSTREAM
	XORL R9, R9
	MOVQ $-1, R8
	BZHIQ CX, R8, R10
	KMOVQ R10, K1
	SUBQ $64, CX
	CMOVQLT R9, CX
	BZHIQ CX, R8, R10
	KMOVQ R10, K2
	SUBQ $64, CX
	CMOVQLT R9, CX
	BZHIQ CX, R8, R10
	KMOVQ R10, K3
	SUBQ $64, CX
	CMOVQLT R9, CX
	BZHIQ CX, R8, R10
	KMOVQ R10, K4
	VMOVDQU8.Z (SI), K1, Z4
	VMOVDQU8.Z 64(SI), K2, Z5
	VMOVDQU8.Z 128(SI), K3, Z6
	VMOVDQU8.Z 192(SI), K4, Z7
	VPXORQ Z4, Z0, Z0
	VPXORQ Z5, Z1, Z1
	VPXORQ Z6, Z2, Z2
	VPXORQ Z7, Z3, Z3
	VMOVDQU8 Z0, K1, (DI)
	VMOVDQU8 Z1, K2, 64(DI)
	VMOVDQU8 Z2, K3, 128(DI)
	VMOVDQU8 Z3, K4, 192(DI)
	VZEROUPPER
	RET
