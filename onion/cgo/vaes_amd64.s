//go:build !purego

#include "go_asm.h"
#include "textflag.h"

// Offsets of the powers from number 16, 12, 8 and 4 on.
#define POWER16 (hashKey_powers+0)
#define POWER12 (hashKey_powers+64)
#define POWER8 (hashKey_powers+128)
#define POWER4 (hashKey_powers+192)

DATA vpoly<>+0(SB)/8, $0xc200000000000000
DATA vpoly<>+8(SB)/8, $0
GLOBL vpoly<>(SB), RODATA|NOPTR, $16

// Increments of the last byte of each block.
DATA vcounts<>+0(SB)/8, $0
DATA vcounts<>+8(SB)/8, $(0<<56)
DATA vcounts<>+16(SB)/8, $0
DATA vcounts<>+24(SB)/8, $(1<<56)
DATA vcounts<>+32(SB)/8, $0
DATA vcounts<>+40(SB)/8, $(2<<56)
DATA vcounts<>+48(SB)/8, $0
DATA vcounts<>+56(SB)/8, $(3<<56)
DATA vcounts<>+64(SB)/8, $0
DATA vcounts<>+72(SB)/8, $(4<<56)
GLOBL vcounts<>(SB), RODATA|NOPTR, $80

// MULTIPLY sets lo, mid, hi to the unreduced products of the blocks in a and b;
// t is lost. REDUCE makes of them the element out, in each lane: a Montgomery
// step of 64 bits, twice. poly has x^63 + x^62 + x^57 in the low half of each
// lane. All arguments are registers of one size.
#define MULTIPLY(a, b, lo, mid, hi, t) \
	VPCLMULQDQ $0x01, b, a, mid; \
	VPCLMULQDQ $0x10, b, a, t; \
	VPCLMULQDQ $0x00, b, a, lo; \
	VPCLMULQDQ $0x11, b, a, hi; \
	VPXORQ t, mid, mid

#define REDUCE(lo, mid, hi, poly, t, out) \
	VPSLLDQ $8, mid, t; \
	VPSRLDQ $8, mid, mid; \
	VPXORQ t, lo, lo; \
	VPXORQ mid, hi, hi; \
	VPCLMULQDQ $0x00, poly, lo, t; \
	VPSHUFD $0x4e, lo, lo; \
	VPXORQ t, lo, lo; \
	VPCLMULQDQ $0x00, poly, lo, t; \
	VPSHUFD $0x4e, lo, lo; \
	VPTERNLOGQ $0x96, t, hi, lo; \
	VMOVDQA64 lo, out

// func expandVCLMUL(hk *hashKey, key *block)
TEXT ·expandVCLMUL(SB), NOSPLIT, $0-16
	MOVQ hk+0(FP), AX
	MOVQ key+8(FP), BX
	VBROADCASTI64X2 vpoly<>(SB), Z20
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

// ACCUMULATE adds to Z4, Z5, Z6 the products of two pairs of registers.
#define ACCUMULATE(a, p, b, q) \
	VPCLMULQDQ $0x01, p, a, Z16; \
	VPCLMULQDQ $0x10, p, a, Z17; \
	VPCLMULQDQ $0x00, p, a, Z18; \
	VPCLMULQDQ $0x11, p, a, Z19; \
	VPCLMULQDQ $0x01, q, b, Z21; \
	VPCLMULQDQ $0x10, q, b, Z22; \
	VPCLMULQDQ $0x00, q, b, Z23; \
	VPCLMULQDQ $0x11, q, b, Z24; \
	VPTERNLOGQ $0x96, Z16, Z17, Z5; \
	VPTERNLOGQ $0x96, Z18, Z23, Z4; \
	VPTERNLOGQ $0x96, Z19, Z24, Z6; \
	VPTERNLOGQ $0x96, Z21, Z22, Z5

// func hashVCLMUL(hk *hashKey, x *block, data *byte, n int, last *byte)
//
// Groups of 16 blocks, four to a register. Zero blocks, which do not change a
// POLYVAL that has not begun, are imagined in front of x, so that the last
// group is complete. All groups but the last multiply the four lanes of a
// register by one power and keep four sums, each over every fourth block; the
// last group multiplies each block by its own power and adds the lanes.
TEXT ·hashVCLMUL(SB), NOSPLIT, $0-40
	MOVQ hk+0(FP), AX
	MOVQ x+8(FP), BX
	MOVQ data+16(FP), SI
	MOVQ n+24(FP), CX
	MOVQ last+32(FP), DX
	VBROADCASTI64X2 vpoly<>(SB), Z20
	VPXORQ Z15, Z15, Z15

	// CX is the number of groups, R8 that of the zero blocks; SI points to
	// where the first of them would be.
	MOVQ CX, R8
	NOTQ R8
	ANDQ $15, R8
	TESTQ CX, CX
	CMOVQEQ BX, DX // without data, x itself is the last block
	ADDQ $16, CX
	SHRQ $4, CX
	LEAQ 1(R8), R9
	MOVQ R9, R10
	SHLQ $4, R10
	SUBQ R10, SI

	// The first group: quadwords of data from number 2·R9 on, and x before
	// them.
	MOVQ $3, R11
	SHLXQ R8, R11, R11
	SHLXQ R8, R11, R11
	MOVQ $-1, R12
	SHLXQ R9, R12, R12
	SHLXQ R9, R12, R12
	CMPQ CX, $1
	JNE full
	ANDL $0x3fffffff, R12 // the last block comes from elsewhere

full:
	VBROADCASTI64X2 (BX), Z7
	KMOVB R12, K1
	KMOVB R11, K5
	SHRL $8, R12
	SHRL $8, R11
	KMOVB R12, K2
	KMOVB R11, K6
	SHRL $8, R12
	SHRL $8, R11
	KMOVB R12, K3
	KMOVB R11, K7
	SHRL $8, R12
	VMOVDQU64.Z (SI), K1, Z0
	VMOVDQU64 Z7, K5, Z0
	VMOVDQU64.Z 64(SI), K2, Z1
	VMOVDQU64 Z7, K6, Z1
	KMOVB R12, K4
	SHRL $8, R11
	KMOVB R11, K5
	VMOVDQU64.Z 128(SI), K3, Z2
	VMOVDQU64 Z7, K7, Z2
	VMOVDQU64.Z 192(SI), K4, Z3
	VMOVDQU64 Z7, K5, Z3
	MOVL $0x3f, R11
	KMOVB R11, K1
	CMPQ CX, $1
	JEQ final

	VBROADCASTI64X2 POWER16(AX), Z8
	VBROADCASTI64X2 POWER12(AX), Z9
	VBROADCASTI64X2 POWER8(AX), Z10
	VBROADCASTI64X2 POWER4(AX), Z11

loop:
	VPXORQ Z4, Z4, Z4
	VPXORQ Z5, Z5, Z5
	VPXORQ Z6, Z6, Z6
	ACCUMULATE(Z3, Z11, Z2, Z10)
	VPXORQ Z15, Z0, Z0
	ACCUMULATE(Z1, Z9, Z0, Z8)
	REDUCE(Z4, Z5, Z6, Z20, Z16, Z15)
	ADDQ $256, SI
	SUBQ $1, CX
	VMOVDQU64 (SI), Z0
	VMOVDQU64 64(SI), Z1
	VMOVDQU64 128(SI), Z2
	CMPQ CX, $1
	JEQ lastload
	VMOVDQU64 192(SI), Z3
	JMP loop

lastload:
	VMOVDQU64.Z 192(SI), K1, Z3

final:
	VINSERTI64X2 $3, (DX), Z3, Z3
	VPXORQ Z4, Z4, Z4
	VPXORQ Z5, Z5, Z5
	VPXORQ Z6, Z6, Z6
	VMOVDQU64 POWER4(AX), Z11
	VMOVDQU64 POWER8(AX), Z10
	VMOVDQU64 POWER12(AX), Z9
	VMOVDQU64 POWER16(AX), Z8
	ACCUMULATE(Z3, Z11, Z2, Z10)
	VPXORQ Z15, Z0, Z0
	ACCUMULATE(Z1, Z9, Z0, Z8)

	// Add the lanes, then reduce once.
	VEXTRACTI64X4 $1, Z5, Y17
	VEXTRACTI64X4 $1, Z4, Y16
	VEXTRACTI64X4 $1, Z6, Y18
	VPXORQ Y17, Y5, Y5
	VPXORQ Y16, Y4, Y4
	VPXORQ Y18, Y6, Y6
	VEXTRACTI64X2 $1, Y5, X17
	VEXTRACTI64X2 $1, Y4, X16
	VEXTRACTI64X2 $1, Y6, X18
	VPXORQ X17, X5, X5
	VPXORQ X16, X4, X4
	VPXORQ X18, X6, X6
	REDUCE(X4, X5, X6, X20, X16, X0)
	VMOVDQU64 X0, (BX)
	VZEROUPPER
	RET

#define ROUND4(op, k) \
	op k, Z0, Z0; \
	op k, Z1, Z1; \
	op k, Z2, Z2; \
	op k, Z3, Z3

// The keystream blocks of the four counters in each of Z4 to Z7, in Z0 to Z3.
#define KEYSTREAM16 \
	VPXORQ Z16, Z4, Z0; \
	VPXORQ Z16, Z5, Z1; \
	VPXORQ Z16, Z6, Z2; \
	VPXORQ Z16, Z7, Z3; \
	ROUND4(VAESENC, Z17); \
	ROUND4(VAESENC, Z18); \
	ROUND4(VAESENC, Z19); \
	ROUND4(VAESENC, Z20); \
	ROUND4(VAESENC, Z21); \
	ROUND4(VAESENC, Z22); \
	ROUND4(VAESENC, Z23); \
	ROUND4(VAESENC, Z24); \
	ROUND4(VAESENC, Z25); \
	ROUND4(VAESENCLAST, Z26)

// func keystreamVAES(ks *aesKey, b, x *block, clear, first uint64, data *byte, n int)
TEXT ·keystreamVAES(SB), NOSPLIT, $0-56
	MOVQ ks+0(FP), AX
	MOVQ b+8(FP), BX
	MOVQ x+16(FP), SI
	MOVQ data+40(FP), DI
	MOVQ n+48(FP), CX
	VBROADCASTI64X2 0(AX), Z16
	VBROADCASTI64X2 16(AX), Z17
	VBROADCASTI64X2 32(AX), Z18
	VBROADCASTI64X2 48(AX), Z19
	VBROADCASTI64X2 64(AX), Z20
	VBROADCASTI64X2 80(AX), Z21
	VBROADCASTI64X2 96(AX), Z22
	VBROADCASTI64X2 112(AX), Z23
	VBROADCASTI64X2 128(AX), Z24
	VBROADCASTI64X2 144(AX), Z25
	VBROADCASTI64X2 160(AX), Z26

	// The counter: POLYVAL, then its last byte.
	VMOVDQU64 vpoly<>(SB), X12
	VMOVDQU64 (SI), X0
	VMOVDQU64 (BX), X1
	MULTIPLY(X0, X1, X4, X5, X6, X7)
	REDUCE(X4, X5, X6, X12, X7, X0)
	MOVQ clear+24(FP), DX
	SHLQ $56, DX
	VMOVQ DX, X1
	VPSLLDQ $8, X1, X1
	VPANDN X0, X1, X1
	MOVQ first+32(FP), DX
	SHLQ $56, DX
	VMOVQ DX, X0
	VPSLLDQ $8, X0, X0
	VPADDB X1, X0, X0
	VSHUFI64X2 $0, Z0, Z0, Z0
	VBROADCASTI64X2 vcounts<>+64(SB), Z8
	VPADDB vcounts<>(SB), Z0, Z4
	VPADDB Z8, Z4, Z5
	VPADDB Z8, Z5, Z6
	VPADDB Z8, Z6, Z7
	VPSLLQ $2, Z8, Z8
	CMPQ CX, $256
	JLT rest

loop:
	KEYSTREAM16
	VPADDB Z8, Z4, Z4
	VPADDB Z8, Z5, Z5
	VPADDB Z8, Z6, Z6
	VPADDB Z8, Z7, Z7
	VPXORQ (DI), Z0, Z0
	VPXORQ 64(DI), Z1, Z1
	VPXORQ 128(DI), Z2, Z2
	VPXORQ 192(DI), Z3, Z3
	VMOVDQU64 Z0, (DI)
	VMOVDQU64 Z1, 64(DI)
	VMOVDQU64 Z2, 128(DI)
	VMOVDQU64 Z3, 192(DI)
	ADDQ $256, DI
	SUBQ $256, CX
	CMPQ CX, $256
	JGE loop

	// Up to 255 bytes: the masks have a bit for each byte. BZHI takes what is
	// negative for large, so that becomes zero first.
rest:
	TESTQ CX, CX
	JEQ done
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
	KEYSTREAM16
	VMOVDQU8.Z (DI), K1, Z4
	VMOVDQU8.Z 64(DI), K2, Z5
	VMOVDQU8.Z 128(DI), K3, Z6
	VMOVDQU8.Z 192(DI), K4, Z7
	VPXORQ Z4, Z0, Z0
	VPXORQ Z5, Z1, Z1
	VPXORQ Z6, Z2, Z2
	VPXORQ Z7, Z3, Z3
	VMOVDQU8 Z0, K1, (DI)
	VMOVDQU8 Z1, K2, 64(DI)
	VMOVDQU8 Z2, K3, 128(DI)
	VMOVDQU8 Z3, K4, 192(DI)

done:
	VZEROUPPER
	RET
