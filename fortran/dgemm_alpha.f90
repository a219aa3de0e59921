!> \brief \b DGEMM_ALPHA computes C := alpha op(A) op(B) + beta C by AlphaTensor's 49 products of 4 x 4 tiles.
!
!  Definition:
!  ===========
!
!       subroutine dgemm_alpha(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc)
!
!> \par Purpose:
!  =============
!>
!> \verbatim
!>
!> DGEMM_ALPHA is a variant of the level 3 BLAS routine DGEMM: same arguments, same meaning,
!>
!>    C := alpha*op( A )*op( B ) + beta*C,     op( X ) = X  or  op( X ) = X**T.
!>
!> op( A ) is cut into 4 x 4 tiles A(I,K), op( B ) into tiles B(K,J). The product of two tiles takes 49
!> multiplications instead of 64 (csrc/factors/alphatensor49.txt): with linear forms L1..L49 in the
!> entries of a tile of A and R1..R49 in those of a tile of B,
!>
!>    m1 = L1(A) * R1(B),   ...,   m49 = L49(A) * R49(B),
!>
!> and each entry of C is a sum of some of the m1..m49 with signs. Being linear, that sum is taken once
!> for a whole row of tiles of A and column of tiles of B, after the products were added up over K:
!>
!>    m1(I,J) = sum over K of L1(A(I,K)) * R1(B(K,J)),   and so on.
!>
!> The forms of a tile are likewise computed once for all the products that it takes part in. So the work is
!> that of 49 real matrix products with a quarter of M, N and K each. Rows and columns beyond a multiple
!> of 4 are computed by the textbook sums.
!>
!> Nothing is allocated, printed or stopped, no run-time library is needed. About 600 KiB of stack are used.
!> \endverbatim
!
!  Arguments:
!  ==========
!
!> \param[in] TRANSA
!> \verbatim
!>          TRANSA is CHARACTER*1
!>          'N' or 'n': op( A ) = A.   'T', 't', 'C' or 'c': op( A ) = A**T.
!> \endverbatim
!>
!> \param[in] TRANSB
!> \verbatim
!>          TRANSB is CHARACTER*1
!>          'N' or 'n': op( B ) = B.   'T', 't', 'C' or 'c': op( B ) = B**T.
!> \endverbatim
!>
!> \param[in] M
!> \verbatim
!>          M is INTEGER
!>          The number of rows of op( A ) and of C.  M >= 0.
!> \endverbatim
!>
!> \param[in] N
!> \verbatim
!>          N is INTEGER
!>          The number of columns of op( B ) and of C.  N >= 0.
!> \endverbatim
!>
!> \param[in] K
!> \verbatim
!>          K is INTEGER
!>          The number of columns of op( A ) and of rows of op( B ).  K >= 0.
!> \endverbatim
!>
!> \param[in] ALPHA
!> \verbatim
!>          ALPHA is DOUBLE PRECISION
!>          When ALPHA is zero, A and B are not read.
!> \endverbatim
!>
!> \param[in] A
!> \verbatim
!>          A is DOUBLE PRECISION array, dimension ( LDA, ka ), where ka is K when op( A ) = A, else M.
!> \endverbatim
!>
!> \param[in] LDA
!> \verbatim
!>          LDA is INTEGER
!>          The leading dimension of A.  LDA >= max( 1, M ) when op( A ) = A, else LDA >= max( 1, K ).
!> \endverbatim
!>
!> \param[in] B
!> \verbatim
!>          B is DOUBLE PRECISION array, dimension ( LDB, kb ), where kb is N when op( B ) = B, else K.
!> \endverbatim
!>
!> \param[in] LDB
!> \verbatim
!>          LDB is INTEGER
!>          The leading dimension of B.  LDB >= max( 1, K ) when op( B ) = B, else LDB >= max( 1, N ).
!> \endverbatim
!>
!> \param[in] BETA
!> \verbatim
!>          BETA is DOUBLE PRECISION
!>          When BETA is zero, C is not read: a NaN in it is overwritten.
!> \endverbatim
!>
!> \param[in,out] C
!> \verbatim
!>          C is DOUBLE PRECISION array, dimension ( LDC, N )
!>          On entry the matrix C, on exit alpha*op( A )*op( B ) + beta*C.
!> \endverbatim
!>
!> \param[in] LDC
!> \verbatim
!>          LDC is INTEGER
!>          The leading dimension of C.  LDC >= max( 1, M ).
!> \endverbatim
!
!> \par Illegal arguments:
!  =======================
!>
!> \verbatim
!>  There is no INFO, as in DGEMM. The position of the first illegal argument is handed to
!>  lai_record_argument_error (csrc/gemm_alpha.c) and C is left alone; lai_argument_error() returns it:
!>
!>     = 1: TRANSA,  2: TRANSB,  3: M < 0,  4: N < 0,  5: K < 0,  8: LDA,  10: LDB,  13: LDC too small.
!> \endverbatim
!
!> \par Further Details:
!  =====================
!>
!> \verbatim
!>  The error bound is norm-wise, not componentwise as DGEMM's: the forms add up to 16 entries before
!>  they are multiplied. A NaN or an infinity in A or B spreads over the tiles that it meets, and entries near
!>  the overflow threshold may overflow in the forms: csrc/gemm_alpha.c declines such operands.
!>
!>  The text between BEGIN GENERATED and END GENERATED is made by csrc/generate.py from the factor table.
!> \endverbatim
!
!> \ingroup gemm
!  =====================================================================
! LEVEL, the instruction set that this object is compiled for, ends the symbol's name. RECURSIVE keeps the large
! arrays on the stack, where each thread has its own; without it gfortran makes them static.
recursive subroutine dgemm_alpha(transa, transb, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc) &
      bind(c, name="lai_dgemm_alpha_&
      &LEVEL&
      &")
   use, intrinsic :: iso_c_binding, only: c_char, ip => c_int, ix => c_intptr_t, wp => c_double
   implicit none
   character(kind=c_char, len=1), intent(in) :: transa, transb
   integer(ip), intent(in) :: m, n, k, lda, ldb, ldc
   real(wp), intent(in) :: alpha, beta
   real(wp), intent(in) :: a(*), b(*)
   real(wp), intent(inout) :: c(*)

   interface
      subroutine record_argument_error(position) bind(c, name="lai_record_argument_error")
         import :: ip
         integer(ip), value :: position
      end subroutine record_argument_error
   end interface

   real(wp), parameter :: zero = 0.0_wp, one = 1.0_wp
   ! A block is `rows` tile rows of op(A) by `depth` tile columns, and `depth` tile rows of op(B) by `columns`
   ! tile columns: its forms of A stay in the second-level cache, those of one product in the first.
   ! `multiply` takes `width` tile rows, 4 tile columns and a depth of 4 at a time.
   integer(ix), parameter :: rows = 32, depth = 32, columns = 8, width = 16
   integer(ix), parameter :: products = 49

   logical :: nota, notb
   integer(ip) :: position
   integer(ix) :: a_row, a_column, b_row, b_column    ! distance of neighbours in a column, in a row of op(A), op(B)
   integer(ix) :: mt, nt, kt                           ! full tiles
   integer(ix) :: it, jt, lt                           ! tiles before this block
   integer(ix) :: ni, nj, nl                           ! tiles in this block
   integer(ix) :: i, j
   real(wp) :: fa(rows, depth, products)               ! forms of A(I,K): I, K, product
   real(wp) :: fb(depth, columns, products)            ! forms of B(K,J): K, J, product
   real(wp) :: mm(rows, columns, products)             ! m1(I,J) ... m49(I,J)

   nota = transa == 'N' .or. transa == 'n'
   notb = transb == 'N' .or. transb == 'n'

   ! Test the arguments, in DGEMM's order.
   position = 0
   if (.not. (nota .or. is_transpose(transa))) then
      position = 1
   else if (.not. (notb .or. is_transpose(transb))) then
      position = 2
   else if (m < 0) then
      position = 3
   else if (n < 0) then
      position = 4
   else if (k < 0) then
      position = 5
   else if (lda < max(1, merge(m, k, nota))) then
      position = 8
   else if (ldb < max(1, merge(k, n, notb))) then
      position = 10
   else if (ldc < max(1, m)) then
      position = 13
   end if
   if (position /= 0) then
      call record_argument_error(position)
      return
   end if

   ! Quick return.
   if (m == 0 .or. n == 0 .or. ((is_zero(alpha) .or. k == 0) .and. is_zero(beta - one))) return

   ! C := beta*C, once; everything below adds to C.
   if (is_zero(beta)) then
      do j = 0, n - 1_ix
         do i = 1, m
            c(j*ldc + i) = zero
         end do
      end do
   else if (.not. is_zero(beta - one)) then
      do j = 0, n - 1_ix
         do i = 1, m
            c(j*ldc + i) = beta*c(j*ldc + i)
         end do
      end do
   end if
   if (is_zero(alpha) .or. k == 0) return

   a_row = merge(1_ix, int(lda, ix), nota)
   a_column = merge(int(lda, ix), 1_ix, nota)
   b_row = merge(1_ix, int(ldb, ix), notb)
   b_column = merge(int(ldb, ix), 1_ix, notb)
   mt = m/4
   nt = n/4
   kt = k/4

   ! Full tiles.
   do lt = 0, kt - 1, depth
      nl = min(depth, kt - lt)
      do it = 0, mt - 1, rows
         ni = min(rows, mt - it)
         call forms_of_a(ni, nl, a(1 + 4*it*a_row + 4*lt*a_column), fa)
         do jt = 0, nt - 1, columns
            nj = min(columns, nt - jt)
            call forms_of_b(nl, nj, b(1 + 4*lt*b_row + 4*jt*b_column), fb)
            call multiply_forms(ni, nj, nl, fa, fb, mm)
            call add_products(ni, nj, mm, c(1 + 4*it + 4*jt*ldc))
         end do
      end do
   end do

   ! What the tiles leave: the last columns of op(A), the last rows of C, its last columns.
   call add_direct(0_ix, 4*mt, 0_ix, 4*nt, 4*kt, int(k, ix))
   call add_direct(4*mt, int(m, ix), 0_ix, int(n, ix), 0_ix, int(k, ix))
   call add_direct(0_ix, 4*mt, 4*nt, int(n, ix), 0_ix, int(k, ix))

contains

   pure logical function is_transpose(trans)
      character(kind=c_char, len=1), intent(in) :: trans
      is_transpose = trans == 'T' .or. trans == 't' .or. trans == 'C' .or. trans == 'c'
   end function is_transpose

   ! x == 0, which -Wextra warns of for reals; here it is meant.
   pure logical function is_zero(x)
      real(wp), intent(in) :: x
      is_zero = abs(x) <= zero
   end function is_zero

   !> Add columns l0 + 1 .. l1 of op(A) times those rows of op(B) to rows i0 + 1 .. i1, columns j0 + 1 .. j1 of C.
   subroutine add_direct(i0, i1, j0, j1, l0, l1)
      integer(ix), intent(in) :: i0, i1, j0, j1, l0, l1
      integer(ix) :: p, q, l
      real(wp) :: s

      if (nota .and. i1 - i0 >= 4) then
         do q = j0, j1 - 1
            do l = l0, l1 - 1
               s = alpha*b(1 + l*b_row + q*b_column)
               do p = i0, i1 - 1
                  c(1 + p + q*ldc) = c(1 + p + q*ldc) + s*a(1 + p + l*lda)
               end do
            end do
         end do
      else
         do q = j0, j1 - 1
            do p = i0, i1 - 1
               s = zero
               do l = l0, l1 - 1
                  s = s + a(1 + p*a_row + l*a_column)*b(1 + l*b_row + q*b_column)
               end do
               c(1 + p + q*ldc) = c(1 + p + q*ldc) + alpha*s
            end do
         end do
      end if
   end subroutine add_direct

   !> Copy the entries of `tiles` tiles, one below the other, to e: tile, entry in row-major order.
   pure subroutine gather(tiles, x, row, column, e)
      integer(ix), intent(in) :: tiles, row, column
      real(wp), intent(in) :: x(*)
      real(wp), intent(inout) :: e(rows, 16)
      integer(ix) :: p, q, t

      ! Four neighbours at a time: the compiler loads vectors and transposes them.
      if (row == 1) then
         do q = 0, 3
            do t = 1, tiles
               e(t, 1 + q) = x(4*t - 3 + q*column)
               e(t, 5 + q) = x(4*t - 2 + q*column)
               e(t, 9 + q) = x(4*t - 1 + q*column)
               e(t, 13 + q) = x(4*t + q*column)
            end do
         end do
      else
         do p = 0, 3
            do t = 1, tiles
               do q = 0, 3
                  e(t, 1 + 4*p + q) = x(1 + (4*(t - 1) + p)*row + q*column)
               end do
            end do
         end do
      end if
   end subroutine gather

   !> x rounded up to a multiple of y.
   pure integer(ix) function padded(x, y)
      integer(ix), intent(in) :: x, y
      padded = y*((x + y - 1)/y)
   end function padded

   !> Forms of the ni x nl tiles of op(A) that begin at x. The tiles that `multiply` reads beyond them are zero.
   subroutine forms_of_a(ni, nl, x, f)
      integer(ix), intent(in) :: ni, nl
      real(wp), intent(in) :: x(*)
      real(wp), intent(inout) :: f(rows, depth, products)
      real(wp) :: e(rows, 16)
      integer(ix) :: t, l, r

      do l = 1, nl
         call gather(ni, x(1 + 4*(l - 1)*a_column), a_row, a_column, e)
         call a_forms(ni, e, f(1, l, 1))
      end do
      do r = 1, products
         do l = 1, padded(nl, 4_ix)
            do t = merge(ni, 0_ix, l <= nl) + 1, padded(ni, width)
               f(t, l, r) = zero
            end do
         end do
      end do
   end subroutine forms_of_a

   !> Forms of the nl x nj tiles of op(B) that begin at x, as for A.
   subroutine forms_of_b(nl, nj, x, f)
      integer(ix), intent(in) :: nl, nj
      real(wp), intent(in) :: x(*)
      real(wp), intent(inout) :: f(depth, columns, products)
      real(wp) :: e(rows, 16)
      integer(ix) :: t, q, r

      do q = 1, nj
         call gather(nl, x(1 + 4*(q - 1)*b_column), b_row, b_column, e)
         call b_forms(nl, e, f(1, q, 1))
      end do
      do r = 1, products
         do q = 1, padded(nj, 4_ix)
            do t = merge(nl, 0_ix, q <= nj) + 1, padded(nl, 4_ix)
               f(t, q, r) = zero
            end do
         end do
      end do
   end subroutine forms_of_b

   !> L1(A) ... L49(A) of `tiles` tiles at once; f(t, r) is form r.
   pure subroutine a_forms(tiles, a, f)
      integer(ix), intent(in) :: tiles
      real(wp), intent(in) :: a(rows, 16)
      real(wp), intent(inout) :: f(rows*depth, *)
      integer(ix) :: t
      ! BEGIN GENERATED a_forms
      real(wp) :: a11, a12, a13, a14, a21, a22, a23, a24, a31, a32, a33, a34, a41, a42, a43, a44
      real(wp) :: s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16
      real(wp) :: s17, s18, s19, s20, s21, s22, s23, s24, s25, s26, s27, s28, s29, s30, s31, s32
      real(wp) :: s33, s34, s35, s36, s37, s38, s39, s40, s41, s42, s43, s44, s45
      do t = 1, tiles
         a11 = a(t, 1)
         a12 = a(t, 2)
         a13 = a(t, 3)
         a14 = a(t, 4)
         a21 = a(t, 5)
         a22 = a(t, 6)
         a23 = a(t, 7)
         a24 = a(t, 8)
         a31 = a(t, 9)
         a32 = a(t, 10)
         a33 = a(t, 11)
         a34 = a(t, 12)
         a41 = a(t, 13)
         a42 = a(t, 14)
         a43 = a(t, 15)
         a44 = a(t, 16)
         f(t, 4) = a33
         f(t, 5) = a31
         s1 = a12 + a14
         f(t, 15) = s1
         s2 = a14 + a34
         f(t, 29) = s2
         s3 = a12 + a32
         f(t, 37) = s3
         s4 = a32 + a34
         f(t, 38) = s4
         s5 = a11 + a31
         f(t, 1) = s5
         f(t, 3) = a13
         s6 = a13 - s5
         s7 = a33 + s6
         f(t, 6) = s7
         f(t, 2) = s6
         s8 = a14 - a32
         f(t, 34) = s8
         f(t, 40) = a32
         s9 = a32 - a42
         f(t, 26) = s9
         s10 = a41 + s9
         s11 = a31 - s10
         f(t, 46) = s11
         f(t, 21) = s10
         s12 = a41 - a43
         f(t, 47) = s12
         s13 = a43 + a44
         f(t, 48) = s13
         s14 = a34 - s13
         f(t, 28) = s14
         s15 = a41 - a42
         f(t, 11) = s15
         s16 = a33 + s14
         s17 = s16 - s11
         f(t, 36) = s17
         f(t, 41) = a21
         s18 = a23 + a24
         s19 = a21 - a22
         s20 = s18 + s19
         f(t, 7) = s20
         s21 = s20 + s15
         s22 = s21 + s13
         f(t, 12) = s22
         s23 = s19 + s15
         f(t, 10) = s23
         f(t, 13) = s18
         s24 = a14 + s18
         s25 = a13 + s24
         f(t, 39) = s25
         s26 = s25 + s16
         f(t, 30) = s26
         s27 = a12 - s19
         s28 = a11 - s27
         f(t, 14) = s28
         s29 = s11 - s26
         s30 = s29 + s28
         f(t, 31) = s30
         s31 = s24 + s27
         f(t, 16) = s31
         s32 = s10 + s27
         f(t, 18) = s32
         f(t, 19) = s24
         s33 = s32 + s24
         s34 = s33 + s14
         f(t, 20) = s34
         f(t, 49) = a23
         f(t, 32) = a43
         s35 = a21 - a41
         f(t, 42) = s35
         s36 = a43 + s35
         f(t, 43) = s36
         s37 = a23 - s36
         f(t, 45) = s37
         s38 = a34 - a44
         f(t, 27) = s38
         s39 = a14 + a24
         f(t, 24) = s39
         s40 = a12 + a22
         s41 = s40 + s39
         f(t, 22) = s41
         s42 = s9 + s41
         f(t, 23) = s42
         s43 = s42 + s38
         f(t, 25) = s43
         s44 = a11 - a13
         f(t, 9) = s44
         f(t, 8) = s21
         f(t, 17) = s33
         f(t, 35) = s29
         s45 = s9 + s40
         f(t, 44) = s45
         f(t, 33) = a14
      end do
      ! END GENERATED
   end subroutine a_forms

   !> R1(B) ... R49(B), as for A.
   pure subroutine b_forms(tiles, b, f)
      integer(ix), intent(in) :: tiles
      real(wp), intent(in) :: b(rows, 16)
      real(wp), intent(inout) :: f(depth*columns, *)
      integer(ix) :: t
      ! BEGIN GENERATED b_forms
      real(wp) :: b11, b12, b13, b14, b21, b22, b23, b24, b31, b32, b33, b34, b41, b42, b43, b44
      real(wp) :: s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16
      real(wp) :: s17, s18, s19, s20, s21, s22, s23, s24, s25, s26, s27, s28, s29, s30, s31, s32
      real(wp) :: s33, s34, s35, s36, s37, s38, s39, s40, s41, s42, s43, s44, s45
      do t = 1, tiles
         b11 = b(t, 1)
         b12 = b(t, 2)
         b13 = b(t, 3)
         b14 = b(t, 4)
         b21 = b(t, 5)
         b22 = b(t, 6)
         b23 = b(t, 7)
         b24 = b(t, 8)
         b31 = b(t, 9)
         b32 = b(t, 10)
         b33 = b(t, 11)
         b34 = b(t, 12)
         b41 = b(t, 13)
         b42 = b(t, 14)
         b43 = b(t, 15)
         b44 = b(t, 16)
         f(t, 4) = b33
         f(t, 5) = b13
         f(t, 15) = b21
         f(t, 29) = b43
         f(t, 37) = b23
         s1 = b41 - b43
         f(t, 38) = s1
         s2 = b11 + b31
         f(t, 1) = s2
         s3 = b13 - s2
         s4 = b33 + s3
         f(t, 3) = s4
         f(t, 6) = b31
         f(t, 2) = s3
         s5 = b21 - b41
         s6 = b43 + s5
         f(t, 34) = s6
         s7 = b23 - s6
         f(t, 40) = s7
         s8 = b14 + b24
         f(t, 26) = s8
         s9 = b12 + b32
         f(t, 46) = s9
         s10 = b23 + b24
         s11 = b14 + s10
         f(t, 21) = s11
         s12 = b13 + s11
         f(t, 47) = s12
         s13 = b43 + b44
         f(t, 48) = s13
         s14 = b34 - s13
         f(t, 28) = s14
         f(t, 11) = s10
         f(t, 36) = b32
         s15 = b21 - b22
         s16 = b12 - s15
         s17 = b11 - s16
         f(t, 41) = s17
         s18 = s10 + s15
         f(t, 7) = s18
         s19 = b41 - b42
         f(t, 12) = s19
         s20 = s15 + s19
         f(t, 10) = s20
         s21 = s18 + s19
         s22 = s21 + s13
         f(t, 13) = s22
         s23 = b32 + b34
         f(t, 39) = s23
         s24 = b14 + b34
         f(t, 30) = s24
         s25 = b12 + b14
         f(t, 14) = s25
         f(t, 31) = b14
         s26 = s11 + s16
         f(t, 16) = s26
         s27 = b32 - b42
         s28 = b41 + s27
         s29 = s28 + s16
         f(t, 18) = s29
         s30 = s29 + s11
         s31 = s30 + s14
         f(t, 19) = s31
         f(t, 20) = s28
         s32 = b31 - s28
         f(t, 49) = s32
         s33 = b33 + s14
         s34 = s12 + s33
         f(t, 32) = s34
         s35 = s32 - s34
         s36 = s35 + s17
         f(t, 42) = s36
         f(t, 43) = s35
         s37 = s33 - s32
         f(t, 45) = s37
         s38 = b34 - b44
         f(t, 27) = s38
         s39 = b12 + b22
         s40 = s39 + s8
         s41 = s27 + s40
         s42 = s41 + s38
         f(t, 24) = s42
         f(t, 22) = s40
         f(t, 23) = s41
         f(t, 25) = s27
         s43 = b11 - b13
         f(t, 9) = s43
         f(t, 8) = s21
         f(t, 17) = s30
         s44 = b14 - b32
         f(t, 35) = s44
         s45 = s27 + s39
         f(t, 44) = s45
         f(t, 33) = s5
      end do
      ! END GENERATED
   end subroutine b_forms

   !> The 49 products of forms, each summed over the block's depth.
   subroutine multiply_forms(ni, nj, nl, l, r, m)
      integer(ix), intent(in) :: ni, nj, nl
      real(wp), intent(in) :: l(rows, depth, products), r(depth, columns, products)
      real(wp), intent(inout) :: m(rows, columns, products)
      ! BEGIN GENERATED multiply_forms
      ! m1 = (a11 + a31) * (b11 + b31)
      call multiply(ni, nj, nl, l(1, 1, 1), r(1, 1, 1), m(1, 1, 1))
      ! m2 = (a11 - a13 + a31) * (b11 - b13 + b31)
      call multiply(ni, nj, nl, l(1, 1, 2), r(1, 1, 2), m(1, 1, 2))
      ! m3 = -a13 * (b11 - b13 + b31 - b33)
      call multiply(ni, nj, nl, l(1, 1, 3), r(1, 1, 3), m(1, 1, 3))
      ! m4 = -a33 * -b33
      call multiply(ni, nj, nl, l(1, 1, 4), r(1, 1, 4), m(1, 1, 4))
      ! m5 = -a31 * -b13
      call multiply(ni, nj, nl, l(1, 1, 5), r(1, 1, 5), m(1, 1, 5))
      ! m6 = (a11 - a13 + a31 - a33) * -b31
      call multiply(ni, nj, nl, l(1, 1, 6), r(1, 1, 6), m(1, 1, 6))
      ! m7 = (-a21 + a22 - a23 - a24) * (-b21 + b22 - b23 - b24)
      call multiply(ni, nj, nl, l(1, 1, 7), r(1, 1, 7), m(1, 1, 7))
      ! m8 = (-a21 + a22 - a23 - a24 - a41 + a42) * (-b21 + b22 - b23 - b24 - b41 + b42)
      call multiply(ni, nj, nl, l(1, 1, 8), r(1, 1, 8), m(1, 1, 8))
      ! m9 = (a11 - a13) * (b11 - b13)
      call multiply(ni, nj, nl, l(1, 1, 9), r(1, 1, 9), m(1, 1, 9))
      ! m10 = (-a21 + a22 - a41 + a42) * (-b21 + b22 - b41 + b42)
      call multiply(ni, nj, nl, l(1, 1, 10), r(1, 1, 10), m(1, 1, 10))
      ! m11 = (a41 - a42) * (-b23 - b24)
      call multiply(ni, nj, nl, l(1, 1, 11), r(1, 1, 11), m(1, 1, 11))
      ! m12 = (-a21 + a22 - a23 - a24 - a41 + a42 - a43 - a44) * (b41 - b42)
      call multiply(ni, nj, nl, l(1, 1, 12), r(1, 1, 12), m(1, 1, 12))
      ! m13 = (-a23 - a24) * (-b21 + b22 - b23 - b24 - b41 + b42 - b43 - b44)
      call multiply(ni, nj, nl, l(1, 1, 13), r(1, 1, 13), m(1, 1, 13))
      ! m14 = (a11 - a12 + a21 - a22) * (-b12 - b14)
      call multiply(ni, nj, nl, l(1, 1, 14), r(1, 1, 14), m(1, 1, 14))
      ! m15 = (-a12 - a14) * -b21
      call multiply(ni, nj, nl, l(1, 1, 15), r(1, 1, 15), m(1, 1, 15))
      ! m16 = (a12 + a14 - a21 + a22 + a23 + a24) * (b12 + b14 - b21 + b22 + b23 + b24)
      call multiply(ni, nj, nl, l(1, 1, 16), r(1, 1, 16), m(1, 1, 16))
      ! m17 = (a12 + a14 - a21 + a22 + a23 + a24 + a32 + a41 - a42) * (b12 + b14 - b21 + b22 + b23 + b24 + b32 + b41 - b42)
      call multiply(ni, nj, nl, l(1, 1, 17), r(1, 1, 17), m(1, 1, 17))
      ! m18 = (a12 - a21 + a22 + a32 + a41 - a42) * (b12 - b21 + b22 + b32 + b41 - b42)
      call multiply(ni, nj, nl, l(1, 1, 18), r(1, 1, 18), m(1, 1, 18))
      ! m19 = (a14 + a23 + a24) * (b12 + b14 - b21 + b22 + b23 + b24 + b32 + b34 + b41 - b42 - b43 - b44)
      call multiply(ni, nj, nl, l(1, 1, 19), r(1, 1, 19), m(1, 1, 19))
      ! m20 = (a12 + a14 - a21 + a22 + a23 + a24 + a32 + a34 + a41 - a42 - a43 - a44) * (b32 + b41 - b42)
      call multiply(ni, nj, nl, l(1, 1, 20), r(1, 1, 20), m(1, 1, 20))
      ! m21 = (a32 + a41 - a42) * (b14 + b23 + b24)
      call multiply(ni, nj, nl, l(1, 1, 21), r(1, 1, 21), m(1, 1, 21))
      ! m22 = (a12 + a14 + a22 + a24) * (b12 + b14 + b22 + b24)
      call multiply(ni, nj, nl, l(1, 1, 22), r(1, 1, 22), m(1, 1, 22))
      ! m23 = (a12 + a14 + a22 + a24 + a32 - a42) * (b12 + b14 + b22 + b24 + b32 - b42)
      call multiply(ni, nj, nl, l(1, 1, 23), r(1, 1, 23), m(1, 1, 23))
      ! m24 = (a14 + a24) * (b12 + b14 + b22 + b24 + b32 + b34 - b42 - b44)
      call multiply(ni, nj, nl, l(1, 1, 24), r(1, 1, 24), m(1, 1, 24))
      ! m25 = (a12 + a14 + a22 + a24 + a32 + a34 - a42 - a44) * (b32 - b42)
      call multiply(ni, nj, nl, l(1, 1, 25), r(1, 1, 25), m(1, 1, 25))
      ! m26 = (a32 - a42) * (b14 + b24)
      call multiply(ni, nj, nl, l(1, 1, 26), r(1, 1, 26), m(1, 1, 26))
      ! m27 = (a34 - a44) * (b34 - b44)
      call multiply(ni, nj, nl, l(1, 1, 27), r(1, 1, 27), m(1, 1, 27))
      ! m28 = (a34 - a43 - a44) * (b34 - b43 - b44)
      call multiply(ni, nj, nl, l(1, 1, 28), r(1, 1, 28), m(1, 1, 28))
      ! m29 = (a14 + a34) * -b43
      call multiply(ni, nj, nl, l(1, 1, 29), r(1, 1, 29), m(1, 1, 29))
      ! m30 = (a13 + a14 + a23 + a24 + a33 + a34 - a43 - a44) * (b14 + b34)
      call multiply(ni, nj, nl, l(1, 1, 30), r(1, 1, 30), m(1, 1, 30))
      ! m31 = (a11 - a12 - a13 - a14 + a21 - a22 - a23 - a24 + a31 - a32 - a33 - a34 - a41 + a42 + a43 + a44) * b14
      call multiply(ni, nj, nl, l(1, 1, 31), r(1, 1, 31), m(1, 1, 31))
      ! m32 = -a43 * (b13 + b14 + b23 + b24 + b33 + b34 - b43 - b44)
      call multiply(ni, nj, nl, l(1, 1, 32), r(1, 1, 32), m(1, 1, 32))
      ! m33 = a14 * (-b21 + b41)
      call multiply(ni, nj, nl, l(1, 1, 33), r(1, 1, 33), m(1, 1, 33))
      ! m34 = (a14 - a32) * (-b21 + b41 - b43)
      call multiply(ni, nj, nl, l(1, 1, 34), r(1, 1, 34), m(1, 1, 34))
      ! m35 = (a13 + a14 + a23 + a24 - a31 + a32 + a33 + a34 + a41 - a42 - a43 - a44) * (b14 - b32)
      call multiply(ni, nj, nl, l(1, 1, 35), r(1, 1, 35), m(1, 1, 35))
      ! m36 = (-a31 + a32 + a33 + a34 + a41 - a42 - a43 - a44) * b32
      call multiply(ni, nj, nl, l(1, 1, 36), r(1, 1, 36), m(1, 1, 36))
      ! m37 = (-a12 - a32) * -b23
      call multiply(ni, nj, nl, l(1, 1, 37), r(1, 1, 37), m(1, 1, 37))
      ! m38 = (a32 + a34) * (b41 - b43)
      call multiply(ni, nj, nl, l(1, 1, 38), r(1, 1, 38), m(1, 1, 38))
      ! m39 = (-a13 - a14 - a23 - a24) * (b32 + b34)
      call multiply(ni, nj, nl, l(1, 1, 39), r(1, 1, 39), m(1, 1, 39))
      ! m40 = a32 * (-b21 + b23 + b41 - b43)
      call multiply(ni, nj, nl, l(1, 1, 40), r(1, 1, 40), m(1, 1, 40))
      ! m41 = -a21 * (b11 - b12 + b21 - b22)
      call multiply(ni, nj, nl, l(1, 1, 41), r(1, 1, 41), m(1, 1, 41))
      ! m42 = (-a21 + a41) * (b11 - b12 - b13 - b14 + b21 - b22 - b23 - b24 + b31 - b32 - b33 - b34 - b41 + b42 + b43 + b44)
      call multiply(ni, nj, nl, l(1, 1, 42), r(1, 1, 42), m(1, 1, 42))
      ! m43 = (-a21 + a41 - a43) * (b13 + b14 + b23 + b24 - b31 + b32 + b33 + b34 + b41 - b42 - b43 - b44)
      call multiply(ni, nj, nl, l(1, 1, 43), r(1, 1, 43), m(1, 1, 43))
      ! m44 = (a12 + a22 + a32 - a42) * (b12 + b22 + b32 - b42)
      call multiply(ni, nj, nl, l(1, 1, 44), r(1, 1, 44), m(1, 1, 44))
      ! m45 = (-a21 + a23 + a41 - a43) * (-b31 + b32 + b33 + b34 + b41 - b42 - b43 - b44)
      call multiply(ni, nj, nl, l(1, 1, 45), r(1, 1, 45), m(1, 1, 45))
      ! m46 = (-a31 + a32 + a41 - a42) * (-b12 - b32)
      call multiply(ni, nj, nl, l(1, 1, 46), r(1, 1, 46), m(1, 1, 46))
      ! m47 = (a41 - a43) * (-b13 - b14 - b23 - b24)
      call multiply(ni, nj, nl, l(1, 1, 47), r(1, 1, 47), m(1, 1, 47))
      ! m48 = (-a43 - a44) * (-b43 - b44)
      call multiply(ni, nj, nl, l(1, 1, 48), r(1, 1, 48), m(1, 1, 48))
      ! m49 = -a23 * (-b31 + b32 + b41 - b42)
      call multiply(ni, nj, nl, l(1, 1, 49), r(1, 1, 49), m(1, 1, 49))
      ! END GENERATED
   end subroutine multiply_forms

   !> m(i,j) = sum over k of l(i,k) r(k,j) for j to nj, rounded up to a multiple of 4, and for i to ni, rounded up to
   !> a multiple of 2 width. The loops over i, of constant length, become single vector instructions, and the eight
   !> sums stay in registers: two vectors of l and four numbers of r are read for eight multiplications.
   subroutine multiply(ni, nj, nl, l, r, m)
      integer(ix), intent(in) :: ni, nj, nl
      real(wp), intent(in) :: l(rows, depth), r(depth, columns)
      real(wp), intent(inout) :: m(rows, columns)
      real(wp) :: s(width, 4)
      integer(ix) :: i, i0, j, k

      do j = 1, nj, 4
         do i0 = 0, ni - 1, width
            do i = 1, width
               s(i, 1) = zero
               s(i, 2) = zero
               s(i, 3) = zero
               s(i, 4) = zero
            end do
            do k = 1, nl, 4
               do i = 1, width
                  s(i, 1) = s(i, 1) + l(i0 + i, k)*r(k, j) + l(i0 + i, k + 1)*r(k + 1, j) &
                              + l(i0 + i, k + 2)*r(k + 2, j) + l(i0 + i, k + 3)*r(k + 3, j)
                  s(i, 2) = s(i, 2) + l(i0 + i, k)*r(k, j + 1) + l(i0 + i, k + 1)*r(k + 1, j + 1) &
                              + l(i0 + i, k + 2)*r(k + 2, j + 1) + l(i0 + i, k + 3)*r(k + 3, j + 1)
                  s(i, 3) = s(i, 3) + l(i0 + i, k)*r(k, j + 2) + l(i0 + i, k + 1)*r(k + 1, j + 2) &
                              + l(i0 + i, k + 2)*r(k + 2, j + 2) + l(i0 + i, k + 3)*r(k + 3, j + 2)
                  s(i, 4) = s(i, 4) + l(i0 + i, k)*r(k, j + 3) + l(i0 + i, k + 1)*r(k + 1, j + 3) &
                              + l(i0 + i, k + 2)*r(k + 2, j + 3) + l(i0 + i, k + 3)*r(k + 3, j + 3)
               end do
            end do
            do i = 1, width
               m(i0 + i, j) = s(i, 1)
               m(i0 + i, j + 1) = s(i, 2)
               m(i0 + i, j + 2) = s(i, 3)
               m(i0 + i, j + 3) = s(i, 4)
            end do
         end do
      end do
   end subroutine multiply

   !> Form the entries of ni x nj tiles of C from m1 ... m49 and add alpha times them to x.
   subroutine add_products(ni, nj, m, x)
      integer(ix), intent(in) :: ni, nj
      real(wp), intent(in) :: m(rows, columns, products)
      real(wp), intent(inout) :: x(*)
      real(wp) :: e(rows, 16)
      integer(ix) :: first, j, q, t

      do j = 0, nj - 1
         call c_entries(ni, m(1, j + 1, 1), e)
         do q = 0, 3
            first = (4*j + q)*ldc
            do t = 1, ni
               x(first + 4*t - 3) = x(first + 4*t - 3) + alpha*e(t, 1 + q)
               x(first + 4*t - 2) = x(first + 4*t - 2) + alpha*e(t, 5 + q)
               x(first + 4*t - 1) = x(first + 4*t - 1) + alpha*e(t, 9 + q)
               x(first + 4*t) = x(first + 4*t) + alpha*e(t, 13 + q)
            end do
         end do
      end do
   end subroutine add_products

   !> The entries of `tiles` tiles of C; m(t, r) is product r, c(t, 1) is c11, c(t, 2) is c12.
   pure subroutine c_entries(tiles, m, c)
      integer(ix), intent(in) :: tiles
      real(wp), intent(in) :: m(rows*columns, *)
      real(wp), intent(inout) :: c(rows, 16)
      integer(ix) :: t
      ! BEGIN GENERATED c_entries
      real(wp) :: s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15, s16
      real(wp) :: s17, s18, s19, s20, s21, s22, s23, s24, s25, s26, s27, s28, s29, s30, s31, s32
      real(wp) :: s33, s34, s35, s36, s37, s38, s39, s40, s41, s42, s43, s44, s45, s46, s47, s48
      real(wp) :: s49, s50, s51, s52, s53, s54, s55, s56, s57, s58, s59, s60, s61, s62, s63
      do t = 1, tiles
         s1 = m(t, 4) + m(t, 5)
         s2 = m(t, 5) + m(t, 2)
         s3 = m(t, 1) - s2
         s4 = m(t, 3) + s3
         s5 = m(t, 6) + s2
         s6 = m(t, 11) - m(t, 48)
         s7 = m(t, 46) + m(t, 36)
         s8 = s6 + m(t, 39)
         s9 = m(t, 30) - s8
         s10 = m(t, 41) + m(t, 49)
         s11 = m(t, 47) + m(t, 49)
         s12 = m(t, 47) + m(t, 32)
         s13 = m(t, 41) + m(t, 32)
         s14 = s13 - m(t, 42)
         s15 = s14 + m(t, 43)
         s16 = s11 - m(t, 43)
         s17 = s16 + m(t, 45)
         s18 = m(t, 23) - m(t, 26)
         s19 = s3 + m(t, 9)
         s20 = s5 - m(t, 9)
         s21 = m(t, 11) - m(t, 8)
         s22 = m(t, 7) + s21
         s23 = m(t, 12) + s22
         s24 = s7 - s23
         s25 = m(t, 10) + s21
         s26 = m(t, 17) - m(t, 21)
         s27 = m(t, 16) - s26
         s28 = m(t, 22) - s27
         s29 = s24 - s27
         s30 = m(t, 14) + s27
         s31 = m(t, 35) - m(t, 36)
         s32 = m(t, 18) + s31
         s33 = m(t, 31) - s32
         s34 = s30 - s33
         s35 = m(t, 39) + s33
         s36 = s9 + s31
         s37 = m(t, 18) - m(t, 44)
         s38 = s18 + s37
         s39 = s28 - s38
         s40 = s10 + s39
         s41 = m(t, 24) - s38
         s42 = s17 + s41
         s43 = m(t, 33) - m(t, 34)
         s44 = m(t, 40) + s43
         s45 = m(t, 37) - s44
         s46 = m(t, 19) + s45
         s47 = s46 - s26
         s48 = s25 + s47
         s49 = m(t, 13) + s48
         c(t, 4) = s35 - s49
         c(t, 8) = s49 - s41
         c(t, 7) = s42 - s47
         c(t, 3) = s4 + s45
         s50 = m(t, 29) + s44
         s51 = m(t, 21) - s50
         s52 = m(t, 28) - s51
         s53 = m(t, 26) + s52
         s54 = m(t, 27) - s53
         c(t, 15) = s12 - s54
         c(t, 16) = s54 - s6
         c(t, 12) = s36 - s52
         c(t, 11) = s1 + s50
         s55 = m(t, 29) + s43
         s56 = m(t, 38) + s55
         s57 = m(t, 20) - s56
         s58 = s18 + s57
         s59 = s28 - s58
         s60 = m(t, 25) + s59
         c(t, 13) = s15 + s60
         c(t, 14) = s60 - s23
         c(t, 10) = s29 - s57
         c(t, 9) = s20 + s56
         s61 = m(t, 15) - m(t, 33)
         s62 = m(t, 10) - s61
         s63 = s22 + s62
         c(t, 2) = s34 - s63
         c(t, 6) = s39 + s63
         c(t, 1) = s19 + s61
         c(t, 5) = s40 - s61
      end do
      ! END GENERATED
   end subroutine c_entries

end subroutine dgemm_alpha
